"""Loss and accuracy as sums and integer counts on the device, read once, over all processes."""

from typing import Callable, NamedTuple, Optional

import torch
from torch import Tensor

from train.loss import cross_entropy, labels_of


class Scores(NamedTuple):
    """What was counted. Accuracies are shares, 0 to 1."""

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
        self._loss = torch.zeros((), dtype=torch.float32 if self._device.type == "npu" else torch.float64,
                                 device=self._device)
        self._counts = torch.zeros(4, dtype=torch.int64, device=self._device)  # top-1, top-5, all, unreadable

    def update(self, logits: Tensor, target: Tensor, readable: Optional[Tensor] = None) -> None:
        """Adds a batch; nothing is copied to the host."""
        logits, labels = logits.detach().float(), labels_of(target)
        if readable is None:
            readable = torch.ones_like(labels, dtype=torch.bool)
        losses = cross_entropy(logits, target, reduction="none")  # (N,)
        best = logits.topk(min(5, logits.shape[1]), dim=1)[1]  # (N, 5)
        hits = (best == labels[:, None]) & readable[:, None]  # (N, 5)
        self._loss += torch.where(readable, losses, torch.zeros_like(losses)).sum().to(self._loss.dtype)
        self._counts += torch.stack(
            [hits[:, :1].sum(), hits.sum(), readable.new_ones(readable.shape).sum(), (~readable).sum()])

    def compute(self, reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Scores:
        """The scores over all processes; `reduce` sums a tensor over them. Reads from the device."""
        loss = float(reduce(self._loss.clone()).item())
        top1, top5, count, unreadable = (int(v) for v in reduce(self._counts.clone()).tolist())
        readable = max(count - unreadable, 1)
        return Scores(loss / readable, top1 / max(count, 1), top5 / max(count, 1), count, unreadable)
