"""Loss and accuracy as integer sums on the device, read once, over all processes: the same in whatever order they are
added up, on any device and any number of processes.
"""

import math
from typing import Callable, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from train.loss import cross_entropy, labels_of

UNITS = 1 << 24  # of a loss of one: float32 has no finer steps there
LARGEST = 1 << 20  # loss of a sample that can be added up


class Scores(NamedTuple):
    """What was counted. Accuracies are shares, 0 to 1. The loss is NaN where one sample's is not a number, infinite or
    above a million.
    """

    loss: float
    top1: float
    top5: float
    total: int
    unreadable: int


class ClassificationMetrics:
    """Counts over batches of logits (N, K) and targets, labels (N,) or shares of the classes (N, K). The mean loss
    weighs samples, not batches.

    Where clips are mixed, the loss is the one trained on, and a hit names the class with the largest share. A sample
    that is not `readable` counts as an error, and not in the loss.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Starts again from nothing."""
        # loss in units, samples without a loss to add, top-1, top-5, all, unreadable
        self._sums = torch.zeros(6, dtype=torch.int64, device=self._device)

    def update(self, logits: Tensor, target: Tensor, readable: Optional[Tensor] = None) -> None:
        """Adds a batch; nothing is copied to the host."""
        logits, labels = logits.detach().float(), labels_of(target)
        if readable is None:
            readable = torch.ones_like(labels, dtype=torch.bool)
        losses = cross_entropy(logits, target, reduction="none")  # (N,)
        best = logits.topk(min(5, logits.shape[1]), dim=1)[1]  # (N, 5)
        hits = (best == labels[:, None]) & readable[:, None]  # (N, 5)
        finite = losses < LARGEST  # false for NaN
        units = torch.where(finite & readable, losses, torch.zeros_like(losses)).mul(UNITS).to(torch.int64)  # (N,)
        self._sums += torch.stack([units.sum(), (readable & ~finite).sum(), hits[:, :1].sum(), hits.sum(),
                                   readable.new_ones(readable.shape).sum(), (~readable).sum()])

    def sums(self) -> Tensor:
        """What was counted since the last reset: (6,) int64, to be added up over processes and given to `go_on`."""
        return self._sums.clone()

    def go_on(self, sums: Sequence[int]) -> None:
        """Counts on from there."""
        self._sums = torch.tensor(list(sums), dtype=torch.int64, device=self._device)

    def compute(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Scores:
        """The scores over all processes; `reduce` sums a tensor over them. Reads from the device."""
        units, endless, top1, top5, count, unreadable = (int(v) for v in reduce(self._sums.clone()).tolist())
        loss = math.nan if endless else units / UNITS / max(count - unreadable, 1)
        return Scores(loss, top1 / max(count, 1), top5 / max(count, 1), count, unreadable)
