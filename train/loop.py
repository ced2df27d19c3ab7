"""The loop: one step, one epoch, the whole run. Networks, data and records are handed in; nothing here knows where
they come from.
"""

import functools
import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Tuple

import torch
from torch import nn

from train.amp import Precision
from train.device import seed_device
from train.distributed import all_reduce_sum, average_buffers, without_exchange
from train.evaluate import evaluate
from train.log import progress
from train.loss import cross_entropy
from train.metrics import ClassificationMetrics, Scores
from train.optim import set_rate
from train.precise_bn import reestimate_statistics
from train.prefetch import Prefetcher
from train.schedule import LearningRate
from train.speed import SpeedMeter

LOG_INTERVAL, FIRST_LOG = 50, 10  # steps
PRECISE_BN_STEPS = 500


class NotFinite(ValueError):
    """The loss is no number any more."""


@dataclass
class Position:
    """Where a run stands: whole epochs done, clips of the current one, optimizer steps in all."""

    epoch: int = 0
    samples: int = 0
    step: int = 0


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
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, schedule: LearningRate, precision: Precision,
                 transform: Callable[[Any], torch.Tensor], seed: int, slots: Slots = WHOLE,
                 mix: Mix = unmixed) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.precision, self.transform, self.mix = precision, transform, mix
        self.module: nn.Module = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        self.metrics = ClassificationMetrics(precision.device)
        self.slots, self._seed = slots, seed

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
        applied = self.precision.step(self.optimizer) if last else True
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


@dataclass
class Plan:
    """How long a run is and what happens between its epochs."""

    end_epoch: int
    steps_per_epoch: int
    global_batch: int
    last_step: int
    precise_bn: bool = True
    save_frequency: int = 1


class Run:
    """Everything around the steps: where batches come from and where reports go.

    `data` has training(epoch, samples, steps) and statistics(epoch, steps), which give the host batches of so many
    steps, evaluation(), which gives all, and evaluation_steps; `record` has interval(...), epoch(...) and
    shows_progress (every process calls it, rank 0 writes); `failed` takes the videos of a batch that could not be read;
    without any, it looks for those of other processes.
    """

    def __init__(self, trainer: Trainer, plan: Plan, data: Any, record: Any, meter: SpeedMeter,
                 failed: Callable[[Any], None]) -> None:
        self.trainer, self.plan, self.data, self.record = trainer, plan, data, record
        self.meter, self.failed = meter, failed

    def fit(self, position: Position) -> Optional[Scores]:
        """Trains from `position` to the end of the plan; returns the last evaluation's scores (None where nothing was
        left to do).
        """
        scores = None
        while position.step < self.plan.last_step:
            self._train_epoch(position)
            done = position.samples >= self.plan.steps_per_epoch * self.plan.global_batch
            if done:
                position.epoch, position.samples = position.epoch + 1, 0
            if self.plan.precise_bn:
                steps = min(PRECISE_BN_STEPS, self.plan.steps_per_epoch)
                self.trainer.refine_batchnorm(self.data.statistics(position.epoch, steps), self.failed)
            average_buffers(self.trainer.module)
            scores = self.evaluate()
            last = position.step >= self.plan.last_step
            self.record.epoch(position, scores, self.meter.total(),
                              save=last or (done and position.epoch % self.plan.save_frequency == 0))
        return scores

    def evaluate(self) -> Scores:
        """Scores over every test video."""
        batches = progress(self.data.evaluation(), self.data.evaluation_steps, "evaluate", self.record.shows_progress)
        scores = evaluate(self.trainer.module, batches, self.trainer.transform, self.trainer.precision, self.failed)
        self.failed(())
        return scores

    def _train_epoch(self, position: Position) -> None:
        self.trainer.model.train()
        self.trainer.metrics.reset()
        first = position.samples // self.plan.global_batch
        steps = min(self.plan.steps_per_epoch - first, self.plan.last_step - position.step)
        source = Prefetcher(self.data.training(position.epoch, position.samples, steps), self.trainer.precision.device)
        waited = 0.0
        text = "epoch %d/%d" % (position.epoch + 1, self.plan.end_epoch)
        per_step = by_step(source, self.trainer.slots.accumulate)
        for i, batches in enumerate(progress(per_step, first + steps, text, self.record.shows_progress, first)):
            if i == 0:
                self.meter.begin()
            for micro, batch in enumerate(batches):
                if batch.failures:
                    self.failed(batch.failures)
                self.trainer.step(batch, position.step + 1, micro)
            position.step += 1
            position.samples += self.plan.global_batch
            self.meter.step(source.waited - waited)
            waited = source.waited
            if position.step % LOG_INTERVAL == 0 or position.step == FIRST_LOG or i + 1 == steps:
                self._report(position)
        self.meter.pause()

    def _report(self, position: Position) -> None:
        self.failed(())  # what other processes met
        scores = self.trainer.metrics.compute(all_reduce_sum)
        self.trainer.metrics.reset()
        self.record.interval(position, scores, self.trainer.schedule(position.step), self.meter.interval())
        if not math.isfinite(scores.loss):
            raise NotFinite(
                "the loss is not a number any more near step %d: lower --lr-base, lengthen --warmup-steps or, in half "
                "precision, lower --loss-scale; the last checkpoint is untouched" % position.step)
