"""From a frame count to the frame indices of one clip. Pure functions; the random state is passed in."""
from math import ceil
from typing import List

import numpy as np


def random_clip(num_frames: int, clip_length: int, interval: int, random_state: np.random.RandomState) -> List[int]:
    """The training clip: uniform start, `clip_length` frames `interval` apart; a video too short repeats its frames.

    Draws the interval, the speed and the start, in this order, also where there is but one to choose from:
    the streams of the reference's sampler stay as they were.
    """
    _check(num_frames, clip_length, interval)
    interval = int(random_state.choice([interval]))
    if clip_length == 1:
        return [int(random_state.choice(num_frames))]
    reach = (clip_length - 1) * interval
    if num_frames - 1 < reach:
        return _repeated(num_frames, clip_length)
    covered = reach * random_state.uniform(1, 1)
    start = random_state.uniform(0, (num_frames - 1) - covered)
    return np.linspace(start, start + covered, clip_length).astype(np.int64).tolist()


def even_clip(num_frames: int, clip_length: int, interval: int, num_clips: int = 1, clip: int = 0) -> List[int]:
    """Clip number `clip` modulo `num_clips` of evaluation: the clips are spread evenly over the video.

    With room to spare the gaps are equal; without, the clips overlap evenly from the first frame to the last.
    """
    _check(num_frames, clip_length, interval)
    if num_clips < 1:
        raise ValueError("the number of clips a video must be at least 1, not %d" % num_clips)
    clip %= num_clips
    span = (clip_length - 1) * interval + 1
    if num_frames < span:
        return _repeated(num_frames, clip_length)
    spare = num_frames - num_clips * span
    if spare > 0:
        start = ceil((clip + 1) * (spare / (num_clips + 1) + span) - span)
    elif spare == 0:
        start = clip * span
    else:
        start = int(clip * (span + spare / (num_clips - 1)))
    return list(range(start, start + span, interval))


def _repeated(num_frames: int, clip_length: int) -> List[int]:
    return [place % num_frames for place in range(clip_length)]


def _check(num_frames: int, clip_length: int, interval: int) -> None:
    if num_frames < 1 or clip_length < 1 or interval < 1:
        raise ValueError("frame count, clip length and frame interval must be at least 1, not %d, %d and %d"
                         % (num_frames, clip_length, interval))
