"""Exact evaluation: every test video once, over all processes, nothing padded twice."""

from typing import Any, Callable, Iterable, Optional

import torch
from torch import nn

from train.amp import Precision
from train.distributed import all_reduce_sum
from train.log import LOGGER
from train.metrics import ClassificationMetrics, Scores
from train.prefetch import Prefetcher

PROTOCOL = "one centre clip a video, short side resized, centre crop"


def evaluate(model: nn.Module, batches: Iterable[Any], transform: Callable[[Any], torch.Tensor], precision: Precision,
             on_failures: Optional[Callable[[Any], Any]] = None) -> Scores:
    """Scores of this process's share of the videos, summed over all processes. A video that cannot be read counts as
    an error.

    `batches` are host batches with clip, label, readable, failures; `transform` makes (N, C, T, H, W) of one on the
    device.
    """
    metrics = ClassificationMetrics(precision.device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in Prefetcher(batches, precision.device):
                if batch.failures and on_failures is not None:
                    on_failures(batch.failures)
                with precision.cast():
                    logits = model(transform(batch))  # (N, K)
                metrics.update(logits, batch.label, batch.readable)
    finally:
        model.train(was_training)
    scores = metrics.compute(all_reduce_sum)
    if scores.unreadable:
        LOGGER.info("evaluation: %d of %d videos cannot be read; each counts as an error",
                    scores.unreadable, scores.total)
    return scores
