"""From a node's map to pixels: where a position of the features lies in a picture, and a colour for its weight.

T frame, H, W; P, Q rows and columns of a picture; C = R, G, B (of flow: x, y).
"""
from typing import Tuple

import cv2
import numpy as np

from data.modalities import NO_MOTION

RED, BLUE = (214, 40, 40), (0, 98, 190)  # added, subtracted
STRONGEST = 0.8  # how much of a pixel the strongest colour covers
UNSEEN = 0.35  # how bright the parts are that the network does not see


def stride_between(full: int, size: int) -> int:
    """The stride that makes `size` positions of `full`; each step of two rounds up."""
    stride = 1
    while -(-full // stride) > size:
        stride *= 2
    return stride


def linear(places: np.ndarray, size: int) -> np.ndarray:
    """(P, size) the matrix that reads `size` values at places (P,) between them; beyond the ends it is the last one."""
    places = np.clip(places, 0, size - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(size)))  # (P, size)


class Lens:
    """Reads a map at the pixels of a picture. The middle of a position's view is the pixel at its number times the
    stride, as the strides and paddings of the network have it.

    `rows` (P,) and `columns` (Q,) say where the picture's pixels lie in the clip of `crop` x `crop` pixels.
    """

    def __init__(self, shape: Tuple[int, int], crop: int, rows: np.ndarray, columns: np.ndarray) -> None:
        self._rows = linear(rows / stride_between(crop, shape[0]), shape[0])  # (P, H)
        self._columns = linear(columns / stride_between(crop, shape[1]), shape[1])  # (Q, W)
        inside = [(places >= -0.5) & (places <= crop - 0.5) for places in (rows, columns)]
        self.seen = inside[0][:, None] & inside[1]  # (P, Q) what lies in the clip

    def read(self, weights: np.ndarray) -> np.ndarray:
        """(H, W) -> (P, Q), 0 where the network sees nothing."""
        return self._rows @ weights @ self._columns.T * self.seen  # (P, H) (H, W) (W, Q) -> (P, Q)


def pixels_of(count: int, full: int) -> np.ndarray:
    """(count,) the places in a line of `full` pixels of those of the line resized to `count`, as OpenCV resizes."""
    return (np.arange(count) + 0.5) * full / count - 0.5


def as_picture(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, C) as a picture in R, G, B. Of flow the hue is the direction, the brightness the speed."""
    if frame.shape[2] == 3:
        return frame
    x, y = (frame.astype(np.float32) - NO_MOTION).transpose(2, 0, 1)
    speed, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    hue = np.stack((angle / 2, np.full_like(x, 200), np.minimum(255, 3 * speed)), 2)
    return cv2.cvtColor(hue.astype(np.uint8), cv2.COLOR_HSV2RGB)


def coloured(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The picture (P, Q, 3) in grey under colours for weights (P, Q) in [-1, 1]: red above 0, blue below, the stronger
    the larger.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    weights = np.clip(weights, -1, 1).astype(np.float32)
    cover = STRONGEST * np.abs(weights)
    colours = [np.where(weights > 0, np.float32(red), np.float32(blue)) for red, blue in zip(RED, BLUE)]
    return cv2.merge([cv2.convertScaleAbs(grey + cover * (colour - grey)) for colour in colours])  # rounded
