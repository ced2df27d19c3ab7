"""Holds an exported file against the network it is of: clips of real videos, on the processor, in float32.

N clip, C channel, T frame, H, W, K class.
"""
import os
from typing import Iterator, List, NamedTuple, Sequence

import numpy as np
import torch

from data.clip_dataset import ClipDataset, collate_clips
from data.device_transforms import DeviceTransform
from data.transforms import EvalTransform
from data.video_list import VideoList
from tools.export_formats import Answer
from tools.items import find_items
from tools.trained import Trained

LIMIT = 1e-4  # of the difference of a logit
AT_ONCE = 8  # clips


class Comparison(NamedTuple):
    """What came out of `clips` clips."""

    clips: int
    same_top1: int
    difference: float  # the largest of any logit
    largest: float  # absolute logit of the network

    @property
    def passed(self) -> bool:
        """Whether the file answers as the network does; a logit that is no number does not."""
        return self.difference <= LIMIT and self.same_top1 == self.clips

    def lines(self) -> List[str]:
        """In words."""
        return ["largest difference of a logit: %.3g, at most %g wanted (the largest logit is %.3g)"
                % (self.difference, LIMIT, self.largest),
                "identical top-1: %d of %d clips" % (self.same_top1, self.clips)]


def listed_videos(words: Sequence[str], modality: str) -> VideoList:
    """The videos that files, folders and patterns mean. ValueError where they mean none, or two kinds of them."""
    items = find_items(words, (), modality)
    kinds = sorted({item.kind for item in items})
    if len(kinds) > 1:
        raise ValueError("--videos: films and folders of frames together; give one of the two")
    paths = [os.path.abspath(item.path).lstrip("/") for item in items]
    return VideoList("/", paths, [0] * len(paths), kinds[0])


def real_clips(trained: Trained, videos: VideoList, count: int) -> Iterator[torch.Tensor]:
    """The network's input (n, C, T, H, W), some clips at a time, `count` in all, as evaluation cuts them: from all over
    the list, several of a video where it is short. What cannot be read is left out; ValueError for too few.
    """
    shape = trained.geometry
    per_video = -(-count // max(1, len(videos)))
    cut = EvalTransform(shape.crop, shape.eval_short_side)
    clips = ClipDataset(videos, shape.clip_length, shape.val_interval, cut, 0, False).with_clips(per_video)
    transform = DeviceTransform(modality=trained.modality)
    found, held = 0, []
    for sample in np.random.RandomState(0).permutation(len(clips)):
        clip = clips[(0, int(sample))]
        if clip.readable:
            held.append(clip)
            found += 1
        if held and (len(held) == AT_ONCE or found == count):
            yield transform(collate_clips(held))
            held = []
        if found == count:
            return
    raise ValueError("only %d clips of the %d videos can be read, %d are wanted: give others by --videos or --dataset, "
                     "or fewer --clips" % (found, len(videos), count))


def compare(trained: Trained, answer: Answer, clips: Iterator[torch.Tensor]) -> Comparison:
    """The file's answers against the network's. ValueError where those of the network itself are no numbers."""
    ours, theirs = [], []
    with torch.no_grad():
        for clip in clips:
            ours.append(trained.network(clip).numpy())
            if not np.isfinite(ours[-1]).all():
                raise ValueError("%s: PyTorch itself answers with infinite values or no numbers, there is nothing to "
                                 "hold a file against: take another checkpoint, or clips as it was trained on"
                                 % trained.path)
            theirs.append(answer(clip.numpy()))
    expected, found = np.concatenate(ours), np.concatenate(theirs)      # (N, K)
    same = int((expected.argmax(1) == found.argmax(1)).sum())
    return Comparison(len(expected), same, float(np.abs(found - expected).max()), float(np.abs(expected).max()))
