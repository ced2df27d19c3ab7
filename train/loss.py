"""Cross-entropy against labels, or against shares of the classes as mixing and label smoothing make them."""

from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The loss of logits (N, K) against labels (N,) or shares (N, K): their mean, or with `none` each sample's (N,)."""
    if target.dim() == 1:
        return functional.cross_entropy(logits, target, reduction=reduction)
    losses = -(target * functional.log_softmax(logits, dim=1)).sum(dim=1)  # (N,)
    return losses.mean() if reduction == "mean" else losses


def labels_of(target: Tensor) -> Tensor:
    """The classes (N,) that answers are counted against: the labels, or those with the largest shares."""
    return target if target.dim() == 1 else target.argmax(dim=1)
