"""Exact evaluation: every test video once, over all processes, nothing padded twice.

N clip, V view (window of a clip), C channel, T frame, H, W, K class.
"""

import math
from typing import Any, Callable, Iterable, Iterator, Optional, Tuple

import torch
from torch import nn

from train.amp import Precision
from train.distributed import all_reduce_sum
from train.log import LOGGER
from train.metrics import ClassificationMetrics, Scores
from train.prefetch import Prefetcher
from train.whereabouts import HERE

PROTOCOL = "one centre clip a video, short side resized, centre crop"


def each_batch(model: nn.Module, batches: Iterable[Any], transform: Callable[[Any], torch.Tensor],
               precision: Precision, views: int = 1) -> Iterator[Tuple[Any, torch.Tensor]]:
    """Each host batch on the device, with the network's logits (N, V, K), V = `views`; the network is in evaluation
    mode meanwhile.

    `transform` makes (N, C, V*T, H, W) of a batch: the frames of a clip's views one after the other.
    """
    was_training = model.training
    model.eval()
    try:
        for batch in Prefetcher(batches, precision.device):
            yield batch, _logits(model, batch, transform, precision, views)
    finally:
        model.train(was_training)


@torch.no_grad()
def _logits(model: nn.Module, batch: Any, transform: Callable[[Any], torch.Tensor], precision: Precision,
            views: int) -> torch.Tensor:
    with precision.cast():
        parts = transform(batch).chunk(views, dim=2)  # V x (N, C, T, H, W)
        return torch.stack([model(part.contiguous()) for part in parts], 1)  # (N, V, K)


def evaluate(model: nn.Module, batches: Iterable[Any], transform: Callable[[Any], torch.Tensor], precision: Precision,
             on_failures: Optional[Callable[[Any], Any]] = None, views: int = 1,
             on_logits: Optional[Callable[[Any, torch.Tensor], Any]] = None) -> Scores:
    """Scores of this process's share of the clips, summed over all processes, each view for itself. A video that cannot
    be read counts as an error.

    `batches` are host batches with clip, label, readable, failures; `transform` and `views` as in `each_batch`;
    `on_logits` is given each batch on the device with its logits (N, V, K).
    """
    HERE.at("evaluation")
    metrics = ClassificationMetrics(precision.device)
    for batch, logits in each_batch(model, batches, transform, precision, views):
        if batch.failures and on_failures is not None:
            on_failures(batch.failures)
        if on_logits is not None:
            on_logits(batch, logits)
        metrics.update(logits.flatten(0, 1), _each_view(batch.label, views), _each_view(batch.readable, views))
    scores = metrics.compute(all_reduce_sum)
    if scores.unreadable:
        LOGGER.info("evaluation: %d of %d %s cannot be read; each counts as an error",
                    scores.unreadable, scores.total, "videos" if views == 1 else "windows")
    if math.isnan(scores.loss):
        LOGGER.info("evaluation: the loss of some videos is no number or above a million: the learning rate may be too "
                    "high, or BatchNorm's statistics be of weights from before (--no-precise-bn, after few steps)")
    return scores


def _each_view(values: torch.Tensor, views: int) -> torch.Tensor:
    """(N,) -> (N*V,), each value once for each view."""
    return values.unsqueeze(1).expand(-1, views).reshape(-1)  # (N*V,)
