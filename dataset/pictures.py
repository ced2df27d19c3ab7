"""A frame made smaller and coded as JPEG: the same for raw frames, flow, the packed store and re-encoded videos."""
import cv2
import numpy as np

from data.transforms import short_side_size


def shrunk(frame: np.ndarray, short_side: int, multiple: int = 1) -> np.ndarray:
    """The frame (H, W, C) with its short side at `short_side` pixels (0: any), never enlarged; where it is shrunk, its
    sides are cut to a `multiple`. The frame itself where nothing is to do.
    """
    height, width = frame.shape[:2]
    if not short_side or min(height, width) <= short_side:
        return frame
    wide, high = (max(multiple, side // multiple * multiple) for side in short_side_size(width, height, short_side))
    return cv2.resize(frame, (wide, high), interpolation=cv2.INTER_AREA)


def jpeg_of(picture: np.ndarray, quality: int) -> bytes:
    """(H, W, B G R) or (H, W) uint8 -> JPEG with half the colours' resolution."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if hasattr(cv2, 'IMWRITE_JPEG_SAMPLING_FACTOR'):  # elsewhere it is this one anyway
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
    written, data = cv2.imencode('.jpg', picture, options)
    assert written
    return data.tobytes()
