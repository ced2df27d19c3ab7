"""Clips that slide over a long video, which is decoded once from its first frame to its last; and when its frames are.

T frame of a clip, H, W, C channel.
"""
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.clip_sampling import even_clip
from data.reader import Reader
from data.transforms import EvalTransform

USUAL_RATE = 25.0  # frames a second, where a video does not say


class SlidingClip(NamedTuple):
    """A clip of a window: its frames `start` up to `end` (not in it) of the video, and the same in seconds."""

    start: int
    end: int
    clip: np.ndarray  # (views*T, crop, crop, C) uint8
    seconds: Tuple[float, float]


class Clock:
    """When the frames of a video are, asked for in rising order: as the file says, of whatever rate and however it
    changes; where its times do not rise, as those of AVI with B-frames, by the `rate`.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._zero: Optional[float] = None  # the file's time of the first frame
        self._said = -1, 0.0  # the last frame whose time could be believed, and when it is
        self._last = 0.0

    def __call__(self, index: int, time: Optional[float]) -> float:
        """Seconds from the first frame that was asked for to this one; `time` as of Reader."""
        if self._said[0] < 0:
            self._zero, self._said = time, (index, 0.0)
        elif time is not None and self._zero is not None and time - self._zero > self._last:
            self._said = index, time - self._zero
        self._last = self._by_rate(index)
        return self._last

    def end(self, index: int) -> float:
        """Seconds to the end of that frame, the last one asked for or one behind it."""
        return self._by_rate(index + 1)

    def _by_rate(self, index: int) -> float:
        return self._said[1] + (index - self._said[0]) / self._rate


def window_starts(num_frames: int, span: int, stride: int) -> List[int]:
    """First frames of windows of `span` frames, `stride` apart; the last window ends with the video. A video shorter
    than a window has one.
    """
    if num_frames <= span:
        return [0]
    starts = list(range(0, num_frames - span + 1, stride))
    return starts if starts[-1] + span == num_frames else starts + [num_frames - span]


def sliding_clips(reader: Reader, transform: EvalTransform, clip_length: int, interval: int, stride: int,
                  rate: float = USUAL_RATE) -> Iterator[SlidingClip]:
    """The windows' clips in turn, each of `clip_length` frames, `interval` apart. No more frames are held than a window
    has. `rate`: frames a second, where the file does not say when its frames are. Raises UnreadableClip, after the
    windows before the damage.
    """
    span = (clip_length - 1) * interval + 1
    short = reader.num_frames <= span
    starts = window_starts(reader.num_frames, span, stride)

    def frames_of(start: int) -> Sequence[int]:
        return even_clip(reader.num_frames, clip_length, interval) if short else range(start, start + span, interval)

    wanted = sorted({index for start in starts for index in frames_of(start)})
    clock, turn = Clock(rate), 0
    held: Dict[int, np.ndarray] = {}
    times: Dict[int, float] = {}
    for index, frame in zip(wanted, reader.read_each(wanted, transform.cut)):
        held[index], times[index] = frame, clock(index, reader.time)
        while turn < len(starts) and index == max(frames_of(starts[turn])):
            start, end = starts[turn], min(starts[turn] + span, reader.num_frames)
            clip = np.stack([held[number] for number in frames_of(start)])  # (T, H, W, C)
            yield SlidingClip(start, end, transform.windows(clip), (times[start], clock.end(end - 1)))
            turn += 1
            first = starts[turn] if turn < len(starts) else reader.num_frames
            held = {number: kept for number, kept in held.items() if number >= first}
            times = {number: kept for number, kept in times.items() if number >= first}
