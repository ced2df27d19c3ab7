"""Frames of one video by exact index: a video file decoded with OpenCV, or a folder of numbered JPEG files, pictures or
optical flow.

They give the frames that a decode from frame 0 gives.
"""
import contextlib
import os
import re
import stat
from bisect import bisect_right
from typing import Iterator, List, Optional, Sequence

import cv2
import numpy as np

from data.containers import HEAD, OPENCV_OPTIONS, refusal, size_refusal
from data.reader import Frames, Reader, UnreadableClip, readable_before
from data.strict_decoding import sound_part, strict_decoder
from data.video_list import VideoFacts

MOST_RATE = 1000  # frames a second; beyond it a header states something else
SEEK_MARGIN = 16  # frames before its target at which OpenCV's seek starts to decode
SEEK_GAIN = 16  # frames that must be saved for a seek to be worth its own cost
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
# JPEG is decoded to R, G, B at once where this OpenCV can.
JPEG_FLAGS = getattr(cv2, "IMREAD_COLOR_RGB", cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
JPEG_BLUE_FIRST = not hasattr(cv2, "IMREAD_COLOR_RGB")
GREY_FLAGS = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
FLOW_NAMES = ("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg")
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that state height and width


class VideoFile(Reader):
    """A video file. Without `num_frames` the frames that can be decoded are counted, which takes a pass over the file;
    where there is a strict decoder, those before the first damaged one.

    `facts`, where their size and time are the file's, come before `num_frames` and allow seeking.
    Raises UnreadableClip where the path is no regular file in a known container, or no frame can be decoded.
    """

    def __init__(self, path: str, num_frames: Optional[int] = None, facts: Optional[VideoFacts] = None) -> None:
        self.path = os.path.abspath(path)
        status = _check_container(self.path)
        if facts is not None and (facts.size, facts.mtime_ns) == (status.st_size, status.st_mtime_ns):
            self.facts, num_frames = facts, facts.num_frames
        self.num_frames = self._count() if num_frames is None else num_frames
        if self.num_frames < 1:
            raise UnreadableClip(self.path, "no frame can be decoded")

    def frames(self, wanted: Sequence[int]) -> Frames:
        """Decodes from the first frame, or from a key frame that saves much, to the last one wanted, and converts only
        those wanted.
        """
        first = seek_target(self.facts.key_frames, wanted[0]) if self.facts else 0
        image = None
        with _opened(self.path) as capture:
            if first:
                capture.set(cv2.CAP_PROP_POS_FRAMES, first)
            places = set(wanted)
            for index in range(first, wanted[-1] + 1):
                if not capture.grab():
                    raise UnreadableClip(self.path, "frame %d of %d cannot be decoded" % (index, self.num_frames),
                                         readable=index)
                if index in places:
                    self.time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                    with readable_before(index, self.path):
                        image = capture.retrieve(image)[1]
                    yield image

    def _count(self) -> int:
        count, complaint = 0, "no frame can be decoded"
        with _opened(self.path) as capture:
            if strict_decoder():
                count, complaint = sound_part(self.path)
            else:
                while capture.grab():
                    count += 1
        if count == 0:
            raise UnreadableClip(self.path, complaint)
        return count


def seek_target(key_frames: Sequence[int], wanted: int) -> int:
    """The frame to seek to before `wanted` is read: an exact key frame where this saves decoding, else 0.

    OpenCV decodes its way to a target, from the last key frame that is sixteen frames or more before it.
    """
    place = bisect_right(key_frames, wanted)
    if not place:
        return 0
    target = key_frames[place - 1]
    start = bisect_right(key_frames, target - SEEK_MARGIN)
    return target if start and key_frames[start - 1] >= SEEK_GAIN else 0


class RawFrames(Reader):
    """A folder of JPEG files numbered from 1. Without `num_frames` the folder is listed and must have no gap.

    `facts`, where their time is the folder's, come before `num_frames`.
    """

    blue_first = JPEG_BLUE_FIRST

    def __init__(self, path: str, num_frames: Optional[int] = None, facts: Optional[VideoFacts] = None,
                 template: str = "img_{:05d}.jpg") -> None:
        self.path = os.path.abspath(path)
        self.template = template
        if facts is not None and facts.mtime_ns == _status(self.path).st_mtime_ns:
            self.facts, num_frames = facts, facts.num_frames
        self.num_frames = _count_numbered(self.path, template) if num_frames is None else num_frames

    def frames(self, wanted: Sequence[int]) -> Frames:
        """Frame 0 is file 1."""
        for index in wanted:
            name = os.path.join(self.path, self.template.format(index + 1))
            with readable_before(index, name):
                image = _decode_jpeg(name)
            yield image


class FlowFrames(Reader):
    """The optical flow of one video: grey JPEG files numbered from 1, of x and of y; one frame (H, W, C = x, y) is the
    flow from a frame of the video to the next, so there is one less. Without `num_frames` the folder is listed.

    Facts of an index are of other files and are not used.
    """

    channels, blue_first = 2, False

    def __init__(self, path: str, num_frames: Optional[int] = None, facts: Optional[VideoFacts] = None) -> None:
        self.path = os.path.abspath(path)
        if num_frames is None:
            num_frames = min(_count_numbered(self.path, template) for template in FLOW_NAMES)
        self.num_frames = num_frames

    def frames(self, wanted: Sequence[int]) -> Frames:
        """Frame 0 is file 1 of both."""
        for index in wanted:
            names = [os.path.join(self.path, name.format(index + 1)) for name in FLOW_NAMES]
            with readable_before(index, names[0]):
                x, y = (_decode_jpeg(name, GREY_FLAGS) for name in names)
                if x is not None and y is not None and x.shape != y.shape:
                    raise UnreadableClip(names[1], "its size is not that of %s" % os.path.basename(names[0]))
            yield None if x is None or y is None else np.stack((x, y), 2)


def _count_numbered(folder: str, template: str) -> int:
    """How many files are named by the template with the numbers from 1 on. UnreadableClip for none, and for a gap."""
    before, after = re.split(r"\{.*?\}", template)
    numbered = re.compile(re.escape(before) + r"(\d+)" + re.escape(after) + r"\Z")
    try:
        names = set(os.listdir(folder))
    except OSError as error:
        raise UnreadableClip(folder, "the folder of frames cannot be listed (%s)" % error.strerror)
    count = sum(1 for name in names if numbered.match(name))
    if count == 0:
        raise UnreadableClip(folder, "no frame named like %s in the folder" % template.format(1))
    for number in range(1, count + 1):
        if template.format(number) not in names:
            raise UnreadableClip(folder, "%d frames, but %s is missing: frames are numbered from 1 without a gap"
                                 % (count, template.format(number)))
    return count


def open_clip(path: str, kind: str, num_frames: Optional[int] = None, facts: Optional[VideoFacts] = None) -> Reader:
    """The reader of a row: `kind`, `num_frames` and `facts` as VideoList has them."""
    return {"video": VideoFile, "rawframes": RawFrames, "flow": FlowFrames}[kind](path, num_frames, facts)


def _status(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except OSError as error:
        raise UnreadableClip(path, "the file cannot be read (%s)" % error.strerror)


def _regular_file(path: str) -> os.stat_result:
    status = _status(path)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableClip(path, "not a regular file")
    return status


def _file_bytes(path: str, size: int = -1) -> bytes:
    """The first `size` bytes, or all, of a file that is not empty."""
    try:
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError as error:
        raise UnreadableClip(path, "the file cannot be read (%s)" % error.strerror)
    if not data:
        raise UnreadableClip(path, "the file is empty")
    return data


def _check_container(path: str) -> os.stat_result:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:  # it would crash OpenCV, and the process with it
        raise UnreadableClip(path, "its path is not UTF-8: rename it")
    status = _regular_file(path)
    reason = refusal(os.path.basename(path), _file_bytes(path, HEAD))
    if reason:
        raise UnreadableClip(path, reason)
    return status


def _open_quietly(path: str) -> cv2.VideoCapture:
    """OpenCV's FFmpeg reader on one thread. Messages of decoder and library go nowhere: the exceptions say enough."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", OPENCV_OPTIONS)
    logging = cv2 if hasattr(cv2, "setLogLevel") else getattr(getattr(cv2, "utils", None), "logging", None)
    level = logging.setLogLevel(0) if logging else None
    try:
        if hasattr(cv2, "CAP_PROP_N_THREADS"):
            return cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        return cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    finally:
        if logging:
            logging.setLogLevel(level)


@contextlib.contextmanager
def open_capture(path: str) -> Iterator[cv2.VideoCapture]:
    """The decoder that VideoFile reads with, for who looks at a file from end to end. UnreadableClip as there."""
    _check_container(path)
    with _opened(path) as capture:
        yield capture


@contextlib.contextmanager
def _opened(path: str) -> Iterator[cv2.VideoCapture]:
    """The open video, its frame size checked, closed in the end."""
    capture = _open_quietly(path)
    try:
        if not capture.isOpened():
            raise UnreadableClip(path, "the video cannot be opened: it is damaged, or holds no video")
        width, height = (int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        _check_size(path, width, height)
        yield capture
    finally:
        capture.release()


def frame_rate(path: str) -> Optional[float]:
    """Frames a second, as the video file says; None where it does not. UnreadableClip as of VideoFile."""
    with open_capture(path) as capture:
        rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0 < rate <= MOST_RATE else None


def _check_size(path: str, width: int, height: int) -> None:
    reason = size_refusal(width, height)
    if reason:
        raise UnreadableClip(path, reason)


def _decode_jpeg(path: str, flags: int = JPEG_FLAGS) -> Optional[np.ndarray]:
    """One JPEG file -> (H, W, 3); (H, W) by the flags for grey."""
    _regular_file(path)
    return decode_jpeg(_file_bytes(path), path, flags)


def decode_jpeg(data: bytes, path: str, flags: int = JPEG_FLAGS) -> Optional[np.ndarray]:
    """The bytes of a JPEG file -> (H, W, 3), the size checked before it is decoded; None where they are damaged."""
    if not data.startswith(JPEG_START):
        raise UnreadableClip(path, "not a JPEG file")
    if JPEG_END not in data[-64:]:
        raise UnreadableClip(path, "the JPEG file is cut off")
    height, width = _jpeg_size(data)
    _check_size(path, width, height)
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def _jpeg_size(data: bytes) -> List[int]:
    """[height, width] as the first frame header says; zeros where there is none."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in JPEG_SIZES:
            return [int.from_bytes(data[place + 5:place + 7], "big"), int.from_bytes(data[place + 7:place + 9], "big")]
        place += 2 + int.from_bytes(data[place + 2:place + 4], "big")
    return [0, 0]
