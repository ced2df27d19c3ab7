"""The run: epochs of steps, what happens between them, and where it stands. Trainer, data and records are handed in."""

import math
from dataclasses import dataclass
from typing import Any, Callable, Optional

from train.distributed import all_reduce_sum, average_buffers
from train.evaluate import evaluate
from train.log import progress
from train.loop import Trainer, by_step
from train.metrics import Scores
from train.prefetch import Prefetcher
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
