"""What every source of frames has in common: from frame indices to a clip.

A frame is cut as soon as it is decoded, so that no more than one is held whole. T frame, H, W, C = R, G, B (of flow: x,
y).
"""
import contextlib
from typing import Dict, Generator, Iterator, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from data.transforms import CutOf, FrameCutter, whole_frame
from data.video_list import VideoFacts

Frames = Generator[Optional[np.ndarray], None, None]


class UnreadableClip(Exception):
    """`path` cannot be read, for `reason`; of its video the frames before `readable` were not seen to be broken."""

    def __init__(self, path: str, reason: str, readable: int = 0) -> None:
        super().__init__(path, reason, readable)
        self.path = path
        self.reason = reason
        self.readable = readable

    def __str__(self) -> str:
        return "%s: %s" % (self.path, self.reason)


@contextlib.contextmanager
def readable_before(index: int, path: str) -> Iterator[None]:
    """What fails in here fails at frame `index`, of OpenCV and of memory too; those before it are still worth a try."""
    try:
        yield
    except UnreadableClip as error:
        raise UnreadableClip(error.path, error.reason, index)
    except (cv2.error, MemoryError) as error:
        raise UnreadableClip(path, "frame %d cannot be decoded (%s)" % (index, error or "no memory left"), index)


class _Clip:
    """The frames gathered so far; allocated when the first one says its size."""

    def __init__(self, source: "Reader", length: int, cut_of: CutOf, out: Optional[np.ndarray]) -> None:
        self._length, self._cut_of, self._out = length, cut_of, out
        self._channels, self._blue_first = source.channels, source.blue_first
        self._shape: Tuple[int, ...] = ()
        self._cutter: Optional[FrameCutter] = None
        self.frames = np.empty((0, 0, 0, source.channels), np.uint8)

    def fill(self, places: List[int], frame: Optional[np.ndarray], path: str) -> None:
        """Puts the cut of one decoded frame (H, W, C) at its places."""
        if frame is None or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != self._channels:
            raise UnreadableClip(path, "a frame cannot be decoded to 8-bit colour")
        if self._cutter is None:
            self._cutter = self._begin(frame.shape)
        if frame.shape != self._shape:
            raise UnreadableClip(path, "the frame size changes from %dx%d to %dx%d" % (
                self._shape[1], self._shape[0], frame.shape[1], frame.shape[0]))
        first = self.frames[places[0]]
        self._cutter.apply(frame, first, self._blue_first)
        for place in places[1:]:
            self.frames[place] = first

    def _begin(self, shape: Tuple[int, ...]) -> FrameCutter:
        self._shape = shape
        cut = self._cut_of(shape[0], shape[1])
        clip_shape = (self._length, cut.window.height, cut.window.width, self._channels)
        fits = self._out is not None and self._out.shape == clip_shape
        self.frames = self._out if fits and self._out is not None else np.empty(clip_shape, np.uint8)
        return FrameCutter(cut, shape[0], shape[1])


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


class Reader:
    """What all sources have in common: `num_frames`, and read() on top of the source's own frames()."""

    path: str
    num_frames: int
    time: Optional[float] = None  # seconds, of the frame that frames() gave last, where the file says it
    facts: Optional[VideoFacts] = None  # what the index knows, where it is true of the file as it is now
    channels = 3
    blue_first = True  # whether frames() gives B, G, R

    def frames(self, wanted: Sequence[int]) -> Frames:
        """The frames at `wanted` (rising, each below num_frames), one after the other: (H, W, C) uint8, None for one
        that is no picture. A frame is valid until the next is asked for. Raises UnreadableClip.
        """
        raise NotImplementedError

    def read(self, indices: Sequence[int], cut_of: CutOf = whole_frame, out: Optional[np.ndarray] = None) -> np.ndarray:
        """The frames at `indices`, in any order, repeats allowed, cut as `cut_of` says: (T, H, W, C) uint8.

        `cut_of` is called once, when the first frame tells the size. `out` is filled and returned where it has the
        clip's shape. Raises UnreadableClip, also where the frames of the clip differ in size.
        """
        places = _places(indices, self.num_frames, self.path)
        wanted = sorted(places)
        clip = _Clip(self, len(indices), cut_of, out)
        with contextlib.closing(self.frames(wanted)) as frames:
            for index in wanted:
                frame = next(frames, None)
                with readable_before(index, self.path):
                    clip.fill(places[index], frame, self.path)
        return clip.frames

    def read_each(self, wanted: Sequence[int], cut_of: CutOf = whole_frame) -> Iterator[np.ndarray]:
        """The frames at `wanted` (rising), one after the other, each cut as in `read` and newly made: (H, W, C) uint8.

        For videos that are too long to be held. Raises UnreadableClip.
        """
        with contextlib.closing(self.frames(wanted)) as frames:
            for index in wanted:
                frame = next(frames, None)
                single = _Clip(self, 1, cut_of, None)
                with readable_before(index, self.path):
                    single.fill([0], frame, self.path)
                yield single.frames[0]
