"""One step: a network with all that it needs for it. Networks, data and transforms are handed in."""

import functools
import hashlib
import itertools
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Tuple

import torch
from torch import nn

from train.amp import Precision
from train.buffers import flat_buffers, put_buffers
from train.device import seed_device
from train.distributed import all_reduce_sum, without_exchange
from train.ema import AveragedWeights
from train.gradient_norm import GradientNorm
from train.loss import cross_entropy
from train.metrics import ClassificationMetrics
from train.optim import set_rate
from train.precise_bn import reestimate_statistics
from train.prefetch import Prefetcher
from train.schedule import LearningRate


class Slots(NamedTuple):
    """How a global batch is cut into equal micro-batches: `accumulate` for each process, slot after slot. What a slot
    holds, and its dropout, is the same for micro-batch r of one process and for process r of several.
    """

    rank: int = 0
    world_size: int = 1
    accumulate: int = 1

    def of(self, micro: int) -> int:
        """The slot of this process's micro-batch, both counted from 0."""
        return micro * self.world_size + self.rank


WHOLE = Slots()


def dropout_seed(seed: int, step: int, slot: int) -> int:
    """The seed of a micro-batch's dropout, 63 bits."""
    return int.from_bytes(hashlib.sha256(b"%d %d %d" % (seed, step, slot)).digest()[:8], "big") >> 1


Mix = Callable[[torch.Tensor, torch.Tensor, int, int], Tuple[torch.Tensor, torch.Tensor]]


def unmixed(clip: torch.Tensor, label: torch.Tensor, number: int, slot: int) -> Tuple[torch.Tensor, torch.Tensor]:
    """Clips and labels as they are."""
    return clip, label


def by_step(batches: Iterable[Any], accumulate: int) -> Iterator[Iterator[Any]]:
    """The micro-batches of each step; every one is taken from `batches` when it is asked for."""
    source = iter(batches)
    for first in source:
        yield itertools.chain((first,), itertools.islice(source, accumulate - 1))


class Trainer:
    """A network with all that a step needs.

    `model` is what the forward pass goes through (DDP's wrapper), `module` the network itself. `mix` makes clips and
    targets of a micro-batch's clips, labels, step and slot; neither precise BN nor evaluation asks it.
    `gradient_norm` limits a step's gradients, `ema` averages the weights.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: LearningRate, precision: Precision,
                 transform: Callable[[Any], torch.Tensor], seed: int, slots: Slots = WHOLE,
                 mix: Mix = unmixed, gradient_norm: Optional[GradientNorm] = None,
                 ema: Optional[AveragedWeights] = None) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.precision, self.transform, self.mix = precision, transform, mix
        self.module: nn.Module = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.metrics = ClassificationMetrics(precision.device)
        self.slots, self.gradient_norm, self.ema, self._seed = slots, gradient_norm, ema, seed

    def step(self, batch: Any, number: int, micro: int = 0) -> bool:
        """Micro-batch `micro` of optimizer step `number`, counted from 0 and from 1, on a device batch; the last one
        steps. False where an overflow skipped that.
        """
        last, slot = micro + 1 == self.slots.accumulate, self.slots.of(micro)
        if micro == 0:
            set_rate(self.optimizer, self.schedule(number))
            self.precision.begin()
        seed_device(dropout_seed(self._seed, number, slot), self.precision.device)
        with without_exchange(self.model, not last):
            with self.precision.cast():
                clip, target = self.mix(self.transform(batch), batch.label, number, slot)
                logits = self.model(clip)  # (N, K)
            loss = cross_entropy(logits.float(), target) / self.slots.accumulate
            self.precision.backward(loss, last)
        applied = self.precision.step(self.optimizer, self.gradient_norm) if last else True
        if last and applied and self.ema is not None:
            self.ema.update()
        self.metrics.update(logits, target)
        return applied

    def statistics(self) -> torch.Tensor:
        """BatchNorm's statistics that training goes on with, then those of the average, as one vector."""
        flat = flat_buffers(self.module)
        return flat if self.ema is None else torch.cat([flat, self.ema.statistics()])

    def put_statistics(self, flat: torch.Tensor) -> None:
        """Puts back what statistics() gave, with or without an average."""
        own = len(flat_buffers(self.module))
        put_buffers(self.module, flat[:own])
        if self.ema is not None and len(flat) > own:
            self.ema.put_statistics(flat[own:])

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
