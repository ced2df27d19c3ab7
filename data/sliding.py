"""Clips that slide over a long video, which is decoded once from its first frame to its last.

T frame of a clip, H, W, C channel.
"""
from typing import Dict, Iterator, List, NamedTuple

import numpy as np

from data.clip_sampling import even_clip
from data.reader import Reader
from data.transforms import EvalTransform


class SlidingClip(NamedTuple):
    """A clip of a window: its frames `start` up to `end` (not in it) of the video."""

    start: int
    end: int
    clip: np.ndarray  # (views*T, crop, crop, C) uint8


def window_starts(num_frames: int, span: int, stride: int) -> List[int]:
    """First frames of windows of `span` frames, `stride` apart; the last window ends with the video. A video shorter
    than a window has one.
    """
    if num_frames <= span:
        return [0]
    starts = list(range(0, num_frames - span + 1, stride))
    return starts if starts[-1] + span == num_frames else starts + [num_frames - span]


def sliding_clips(reader: Reader, transform: EvalTransform, clip_length: int, interval: int,
                  stride: int) -> Iterator[SlidingClip]:
    """The windows' clips in turn, each of `clip_length` frames, `interval` apart. No more frames are held than a window
    has. Raises UnreadableClip, after the windows before the damage.
    """
    span = (clip_length - 1) * interval + 1
    if reader.num_frames <= span:
        indices = even_clip(reader.num_frames, clip_length, interval)
        yield SlidingClip(0, reader.num_frames, transform.windows(reader.read(indices, transform.cut)))
        return
    starts = window_starts(reader.num_frames, span, stride)
    wanted = sorted({start + place * interval for start in starts for place in range(clip_length)})
    held: Dict[int, np.ndarray] = {}
    turn = 0
    for index, frame in zip(wanted, reader.read_each(wanted, transform.cut)):
        held[index] = frame
        while turn < len(starts) and index == starts[turn] + span - 1:
            start = starts[turn]
            clip = np.stack([held[start + place * interval] for place in range(clip_length)])  # (T, H, W, C)
            yield SlidingClip(start, start + span, transform.windows(clip))
            turn += 1
            first = starts[turn] if turn < len(starts) else reader.num_frames
            held = {number: kept for number, kept in held.items() if number >= first}
