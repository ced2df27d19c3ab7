"""Augmentation over a batch, on the device: random erasing, mixup, CutMix, label smoothing. All are off by default.

Papers: Zhong et al., AAAI 2020; Zhang et al., ICLR 2018; Yun et al., ICCV 2019; Szegedy et al., CVPR 2016. Ranges, and
the choice between mixup and CutMix, are those of timm and SlowFast. A box is the same in all frames of a clip.
Shapes: N clip, C = R, G, B, T frame, H, W; K class.
"""
import math
from typing import NamedTuple, Optional, Tuple

import numpy as np
import torch

from data.device_transforms import normalize
from data.randomness import random_state, uniform_noise

ERASED_AREA = (0.02, 1 / 3)  # share of a frame
ERASED_ASPECT = (0.3, 1 / 0.3)  # height to width
ERASING_TRIES = 10
SWITCH_PROBABILITY = 0.5  # of CutMix, where both mixes are on


class MixOptions(NamedTuple):
    """The options of the same names; 0 switches one off."""

    mixup: float = 0.0
    cutmix: float = 0.0
    random_erasing: float = 0.0
    label_smoothing: float = 0.0


class Box(NamedTuple):
    """A rectangle of a frame, in pixels; `bottom` and `right` lie outside."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    def of(self, clip: torch.Tensor) -> torch.Tensor:
        """The view of it in all frames of (..., H, W)."""
        return clip[..., self.top:self.bottom, self.left:self.right]


def draw_mix(state: np.random.RandomState, options: MixOptions, height: int,
             width: int) -> Tuple[float, Optional[Box]]:
    """One mix for a whole batch: the share that a clip keeps of itself, and CutMix's box (None: mixup).

    The share is Beta(alpha, alpha), of CutMix what its box leaves after the frame's edges have cut it.
    """
    if not options.cutmix or (options.mixup and state.uniform() >= SWITCH_PROBABILITY):
        return float(state.beta(options.mixup, options.mixup)), None
    half = 0.5 * math.sqrt(1 - state.beta(options.cutmix, options.cutmix))
    y, x = state.randint(height), state.randint(width)
    half_height, half_width = int(half * height), int(half * width)
    box = Box(max(0, y - half_height), min(height, y + half_height), max(0, x - half_width), min(width, x + half_width))
    return 1 - box.area / (height * width), box


def draw_erasing(state: np.random.RandomState, probability: float, height: int,
                 width: int) -> Optional[Tuple[Box, int]]:
    """With `probability` a box to erase and the key of its noise, else None, as in the rare case that no box fits."""
    if state.uniform() >= probability:
        return None
    for _ in range(ERASING_TRIES):
        area = state.uniform(*ERASED_AREA) * height * width
        aspect = math.exp(state.uniform(*np.log(ERASED_ASPECT)))
        rows, columns = int(round(math.sqrt(area * aspect))), int(round(math.sqrt(area / aspect)))
        if 0 < rows < height and 0 < columns < width:
            top, left = state.randint(height - rows + 1), state.randint(width - columns + 1)
            return Box(top, top + rows, left, left + columns), int(state.randint(1 << 32, dtype=np.int64))
    return None


def erase(clip: torch.Tensor, box: Box, key: int) -> None:
    """Fills the box of one normalised clip (3, T, H, W) with levels uniform in [0, 255), as the paper does."""
    part = box.of(clip)  # (3, T, h, w)
    keys = torch.full((1,), key, dtype=torch.int64, device=clip.device)
    levels = uniform_noise(keys, part.numel()).mul_(255).view(1, *part.shape)  # (1, 3, T, h, w)
    part.copy_(normalize(levels)[0])


def partners(values: torch.Tensor) -> torch.Tensor:
    """For each of (N, ...), N >= 2, the other of its pair (0, 1), (2, 3), …; an odd last one gets the one before it.

    So the slices of even length into which the ranks cut a global batch have the pairs of the whole.
    """
    even = len(values) // 2 * 2
    swapped = torch.stack((values[1:even:2], values[0:even:2]), 1)  # (N // 2, 2, ...)
    return torch.cat((swapped.reshape(values[:even].shape), values[even - 1:len(values) - 1]))  # (N, ...)


def blend(values: torch.Tensor, share: float) -> torch.Tensor:
    """`share` of each of (N, ...) and the rest of its partner, in place."""
    other = partners(values)
    return values.mul_(share).add_(other, alpha=1 - share)


def smooth_labels(labels: torch.Tensor, num_classes: int, smoothing: float) -> torch.Tensor:
    """(N,) -> (N, K) float32 that sum to 1: `smoothing` of it spread over all classes, the rest on the label."""
    classes = torch.arange(num_classes, device=labels.device)
    hot = (labels.unsqueeze(1) == classes).to(torch.float32)  # (N, K)
    return hot.mul_(1 - smoothing).add_(smoothing / num_classes)


class BatchMix:
    """Normalised clips (N, 3, T, H, W) and labels (N,) of a training step -> clips and targets, nothing read back.

    Clips are changed in place. Targets are shares of the classes (N, K) float32, or the labels themselves where no
    option touches them. The mix follows from (seed, step), an erased box from (seed, step, place in the global batch):
    `slot` is the number of this batch among the equal ones of a global batch.
    """

    def __init__(self, options: MixOptions, num_classes: int, seed: int) -> None:
        self.options, self.num_classes = options, num_classes
        self._seed = seed
        self._scratch = np.random.RandomState(0)

    def __call__(self, clip: torch.Tensor, label: torch.Tensor, step: int,
                 slot: int = 0) -> Tuple[torch.Tensor, torch.Tensor]:
        options = self.options
        if options.random_erasing:
            self._erase(clip, step, slot * len(clip))
        mixes = options.mixup or options.cutmix
        if not (mixes or options.label_smoothing):
            return clip, label
        target = smooth_labels(label, self.num_classes, options.label_smoothing)
        if mixes:
            share, box = draw_mix(self._state(step, 0, "mix"), options, clip.shape[3], clip.shape[4])
            if box is None:
                blend(clip, share)
            else:
                box.of(clip).copy_(partners(box.of(clip)))
            blend(target, share)
        return clip, target

    def _erase(self, clip: torch.Tensor, step: int, first: int) -> None:
        for i in range(len(clip)):
            state = self._state(step, first + i, "erase")
            erasing = draw_erasing(state, self.options.random_erasing, clip.shape[3], clip.shape[4])
            if erasing is not None:
                erase(clip[i], *erasing)

    def _state(self, step: int, place: int, stream: str) -> np.random.RandomState:
        return random_state(self._seed, step, place, stream, reuse=self._scratch)
