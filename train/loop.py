"""One step: a network with all that it needs for it. Networks, data and transforms are handed in."""

import functools
import hashlib
from typing import Any, Callable, Iterator, Tuple

import torch
from torch import nn

from train.amp import Precision
from train.device import seed_device
from train.distributed import all_reduce_sum
from train.loss import cross_entropy
from train.metrics import ClassificationMetrics
from train.optim import set_rate
from train.precise_bn import reestimate_statistics
from train.prefetch import Prefetcher
from train.schedule import LearningRate


def dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of a step's dropout on one process, 63 bits."""
    return int.from_bytes(hashlib.sha256(b"%d %d %d" % (seed, step, rank)).digest()[:8], "big") >> 1


Mix = Callable[[torch.Tensor, torch.Tensor, int], Tuple[torch.Tensor, torch.Tensor]]


def unmixed(clip: torch.Tensor, label: torch.Tensor, number: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Clips and labels as they are."""
    return clip, label


class Trainer:
    """A network with all that a step needs.

    `model` is what the forward pass goes through (DDP's wrapper), `module` the network itself. `mix` makes clips and
    targets of a step's clips, labels and number; neither precise BN nor evaluation asks it.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: LearningRate, precision: Precision,
                 transform: Callable[[Any], torch.Tensor], seed: int, rank: int = 0,
                 mix: Mix = unmixed) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.precision, self.transform, self.mix = precision, transform, mix
        self.module: nn.Module = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.metrics = ClassificationMetrics(precision.device)
        self._seed, self._rank = seed, rank

    def step(self, batch: Any, number: int) -> bool:
        """One optimizer step, `number` counted from 1, on a device batch. False where an overflow skipped it."""
        set_rate(self.optimizer, self.schedule(number))
        seed_device(dropout_seed(self._seed, number, self._rank), self.precision.device)
        self.precision.begin()
        with self.precision.cast():
            clip, target = self.mix(self.transform(batch), batch.label, number)
            logits = self.model(clip)  # (N, K)
        loss = cross_entropy(logits.float(), target)
        self.precision.backward(loss)
        applied = self.precision.step(self.optimizer)
        self.metrics.update(logits, target)
        return applied

    def refine_batchnorm(self, batches: Any, failed: Callable[[Any], None]) -> int:
        """Precise BN over host batches: forward passes in training mode that change nothing but the statistics."""

        def forwards() -> Iterator[Callable[[], None]]:
            for batch in Prefetcher(batches, self.precision.device):
                if batch.failures:
                    failed(batch.failures)
                yield functools.partial(self._forward, batch)

        return reestimate_statistics(self.module, forwards(), all_reduce_sum)

    def _forward(self, batch: Any) -> None:
        with self.precision.cast():
            self.module(self.transform(batch))
