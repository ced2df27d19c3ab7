"""Frames of one video by exact index: a video file decoded with OpenCV, or a folder of numbered JPEG files.

Both give the frames that a decode from frame 0 gives. Layout: T frame, H, W, C = R, G, B.
"""
import contextlib
import os
import re
import stat
from typing import Dict, Iterator, List, Optional, Sequence, Union

import cv2
import numpy as np

from data.containers import HEAD, OPENCV_OPTIONS, refusal, size_refusal
from data.strict_decoding import sound_part, strict_decoder

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that state height and width


class UnreadableClip(Exception):
    """`path` cannot be read, for `reason`; of its video the frames before `readable` were not seen to be broken."""

    def __init__(self, path: str, reason: str, readable: int = 0) -> None:
        super().__init__(path, reason, readable)
        self.path = path
        self.reason = reason
        self.readable = readable

    def __str__(self) -> str:
        return "%s: %s" % (self.path, self.reason)


class VideoFile:
    """A video file. Without `num_frames` the frames that can be decoded are counted, which takes a pass over the file;
    where there is a strict decoder, those before the first damaged one.

    Raises UnreadableClip where the path is no regular file in a known container, or no frame can be decoded.
    """

    def __init__(self, path: str, num_frames: Optional[int] = None) -> None:
        self.path = os.path.abspath(path)
        _check_container(self.path)
        self.num_frames = self._count() if num_frames is None else num_frames

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames at `indices`, in any order, repeats allowed: (T, H, W, C) uint8 RGB.

        Decodes from the first frame to the last one asked for, and converts only those asked for.
        """
        places = _places(indices, self.num_frames, self.path)
        clip = _Clip(len(indices))
        with _opened(self.path) as capture:
            for index in range(max(places) + 1):
                if not capture.grab():
                    raise UnreadableClip(self.path, "frame %d of %d cannot be decoded" % (index, self.num_frames),
                                         readable=index)
                if index in places:
                    with _readable_before(index, self.path):
                        clip.fill(places[index], capture.retrieve()[1], self.path)
        return clip.frames

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


class RawFrames:
    """A folder of JPEG files numbered from 1. Without `num_frames` the folder is listed and must have no gap."""

    def __init__(self, path: str, num_frames: Optional[int] = None, template: str = "img_{:05d}.jpg") -> None:
        self.path = os.path.abspath(path)
        self.template = template
        self.num_frames = self._count() if num_frames is None else num_frames

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The frames at `indices` (0 is file 1), in any order, repeats allowed: (T, H, W, C) uint8 RGB."""
        places = _places(indices, self.num_frames, self.path)
        clip = _Clip(len(indices))
        for index in sorted(places):
            name = os.path.join(self.path, self.template.format(index + 1))
            with _readable_before(index, name):
                clip.fill(places[index], _decode_jpeg(name), name)
        return clip.frames

    def _count(self) -> int:
        before, after = re.split(r"\{.*?\}", self.template)
        numbered = re.compile(re.escape(before) + r"(\d+)" + re.escape(after) + r"\Z")
        try:
            names = set(os.listdir(self.path))
        except OSError as error:
            raise UnreadableClip(self.path, "the folder of frames cannot be listed (%s)" % error.strerror)
        count = sum(1 for name in names if numbered.match(name))
        if count == 0:
            raise UnreadableClip(self.path, "no frame named like %s in the folder" % self.template.format(1))
        for number in range(1, count + 1):
            if self.template.format(number) not in names:
                raise UnreadableClip(self.path, "%d frames, but %s is missing: frames are numbered from 1 without a gap"
                                     % (count, self.template.format(number)))
        return count


Reader = Union[VideoFile, RawFrames]


def open_clip(path: str, kind: str, num_frames: Optional[int] = None) -> Reader:
    """The reader of a row: `kind` as in VideoList."""
    return {"video": VideoFile, "rawframes": RawFrames}[kind](path, num_frames)


class _Clip:
    """The frames gathered so far; allocated when the first one says its size."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.frames = np.empty((0, 0, 0, 3), np.uint8)

    def fill(self, places: List[int], frame: Optional[np.ndarray], path: str) -> None:
        """Puts one decoded (H, W, BGR) frame at its places."""
        if frame is None or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise UnreadableClip(path, "a frame cannot be decoded to 8-bit colour")
        if not len(self.frames):
            self.frames = np.empty((self.length,) + frame.shape, np.uint8)
        if frame.shape != self.frames.shape[1:]:
            raise UnreadableClip(path, "the frame size changes from %dx%d to %dx%d" % (
                self.frames.shape[2], self.frames.shape[1], frame.shape[1], frame.shape[0]))
        first = self.frames[places[0]]
        cv2.cvtColor(frame, cv2.COLOR_BGR2RGB, dst=first)
        for place in places[1:]:
            self.frames[place] = first


@contextlib.contextmanager
def _readable_before(index: int, path: str) -> Iterator[None]:
    """What fails in here fails at frame `index`, of OpenCV and of memory too; those before it are still worth a try."""
    try:
        yield
    except UnreadableClip as error:
        raise UnreadableClip(error.path, error.reason, index)
    except (cv2.error, MemoryError) as error:
        raise UnreadableClip(path, "frame %d cannot be decoded (%s)" % (index, error or "no memory left"), index)


def _places(indices: Sequence[int], num_frames: int, path: str) -> Dict[int, List[int]]:
    """Frame index -> its places in the clip."""
    places: Dict[int, List[int]] = {}
    for place, index in enumerate(indices):
        if not 0 <= index < num_frames:
            raise UnreadableClip(path, "frame %d asked for, the video has %d" % (index, num_frames))
        places.setdefault(int(index), []).append(place)
    if not places:
        raise ValueError("no frame asked for from %s" % path)
    return places


def _file_bytes(path: str, size: int = -1) -> bytes:
    """The first `size` bytes, or all, of a regular file that is not empty."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise UnreadableClip(path, "not a regular file")
        with open(path, "rb") as file:
            data = file.read(size)
    except OSError as error:
        raise UnreadableClip(path, "the file cannot be read (%s)" % error.strerror)
    if not data:
        raise UnreadableClip(path, "the file is empty")
    return data


def _check_container(path: str) -> None:
    reason = refusal(os.path.basename(path), _file_bytes(path, HEAD))
    if reason:
        raise UnreadableClip(path, reason)


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


@contextlib.contextmanager
def open_capture(path: str) -> Iterator[cv2.VideoCapture]:
    """The decoder that VideoFile reads with, for who looks at a file from end to end. UnreadableClip as there."""
    _check_container(path)
    with _opened(path) as capture:
        yield capture


def _check_size(path: str, width: int, height: int) -> None:
    reason = size_refusal(width, height)
    if reason:
        raise UnreadableClip(path, reason)


def _decode_jpeg(path: str) -> Optional[np.ndarray]:
    """One JPEG file -> (H, W, BGR), its size checked before it is decoded."""
    data = _file_bytes(path)
    if not data.startswith(JPEG_START):
        raise UnreadableClip(path, "not a JPEG file")
    if JPEG_END not in data[-64:]:
        raise UnreadableClip(path, "the JPEG file is cut off")
    height, width = _jpeg_size(data)
    _check_size(path, width, height)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)


def _jpeg_size(data: bytes) -> List[int]:
    """[height, width] as the first frame header says; zeros where there is none."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker in JPEG_SIZES:
            return [int.from_bytes(data[place + 5:place + 7], "big"), int.from_bytes(data[place + 7:place + 9], "big")]
        place += 2 + int.from_bytes(data[place + 2:place + 4], "big")
    return [0, 0]
