"""The loop: one step, one epoch, the whole run. Networks, data and records are handed in; nothing here knows where
they come from.
"""

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Optional, Tuple

import torch
from torch import nn

from train.amp import Precision
from train.device import seed_device
from train.distributed import all_reduce_sum, average_buffers
from train.evaluate import evaluate
from train.log import progress
from train.loss import cross_entropy
from train.metrics import ClassificationMetrics, Scores
from train.optim import set_rate
from train.precise_bn import reestimate_statistics
from train.prefetch import Prefetcher
from train.schedule import LearningRate
from train.speed import SpeedMeter
from train.whereabouts import HERE

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

    `data` has training(epoch, samples, steps), statistics(epoch, steps) and evaluation(), which give host batches, and
    evaluation_steps; `record` has interval(...), epoch(...) and shows_progress (every process calls it, rank 0 writes);
    `failed` takes the videos of a batch that could not be read; without any, it looks for those of other processes.
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
                HERE.at("epoch %d: precise BN" % position.epoch)
                steps = min(PRECISE_BN_STEPS, self.plan.steps_per_epoch)
                self.trainer.refine_batchnorm(self.data.statistics(position.epoch, steps), self.failed)
            average_buffers(self.trainer.module)
            scores = self.evaluate()
            last = position.step >= self.plan.last_step
            HERE.at("epoch %d: its end, saving" % position.epoch)
            self.record.epoch(position, scores, self.meter.total(),
                              save=last or (done and position.epoch % self.plan.save_frequency == 0))
        return scores

    def evaluate(self) -> Scores:
        """Scores over every test video."""
        HERE.at("evaluation")
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
        for i, batch in enumerate(progress(source, first + steps, text, self.record.shows_progress, first)):
            if i == 0:
                self.meter.begin()
            if batch.failures:
                self.failed(batch.failures)
            HERE.at("epoch %d step %d: training" % (position.epoch + 1, position.step + 1))
            self.trainer.step(batch, position.step + 1)
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
