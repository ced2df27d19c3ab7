"""The run: epochs of steps, what happens between them, and where it stands. Trainer, data and records are handed in."""

from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Optional, Tuple

from train.bad_steps import BadSteps
from train.distributed import all_reduce_sum, average_buffers
from train.evaluate import evaluate
from train.log import progress
from train.loop import Trainer, by_step
from train.metrics import Scores
from train.prefetch import Prefetcher
from train.scores_file import ScoresFile
from train.speed import SpeedMeter
from train.stopping import Asked, Stopped, StopRequest, describe
from train.whereabouts import HERE

LOG_INTERVAL, FIRST_LOG = 50, 10  # steps
PRECISE_BN_STEPS = 500


@dataclass
class Position:
    """Where a run stands: whole epochs done, clips of the current one, optimizer steps in all."""

    epoch: int = 0
    samples: int = 0
    step: int = 0


@dataclass
class Plan:
    """How long a run is, what happens between its epochs, and how often it is saved in between (steps; 0: never)."""

    end_epoch: int
    epoch_samples: int
    global_batch: int
    last_step: int
    precise_bn: bool = True
    save_frequency: int = 1
    save_every: int = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch; what is left over is dropped."""
        return self.epoch_samples // self.global_batch

    def steps_left(self, position: Position) -> int:
        """Steps from there to the end of the epoch."""
        return max(0, (self.epoch_samples - position.samples) // self.global_batch)


class Run:
    """Everything around the steps: where batches come from, where reports go, and what ends it before its time.

    `data` has training(epoch, samples, steps) and statistics(epoch, steps), which give the host batches of so many
    steps, evaluation(), which gives all, evaluation_steps, and how many of these every process has at least,
    common_evaluation_steps; `record` has interval(...), epoch(...), save(...), settle(), samples(...), failure and
    shows_progress (every process calls it, rank 0 writes); `failed` takes the videos of a batch that could not be read;
    without any, it looks for those of other processes. `scores_file`, where there is one, keeps what an evaluation says
    of each video.
    """

    def __init__(self, trainer: Trainer, plan: Plan, data: Any, record: Any, meter: SpeedMeter,
                 failed: Callable[[Any], None], stop: StopRequest, bad_steps: BadSteps,
                 scores_file: Optional[ScoresFile] = None) -> None:
        self.trainer, self.plan, self.data, self.record = trainer, plan, data, record
        self.scores_file = scores_file
        self.meter, self.failed, self.stop, self.bad_steps = meter, failed, stop, bad_steps

    def fit(self, position: Position, evaluated: bool = True) -> Optional[Scores]:
        """Trains from `position` to the end of the plan; returns the last evaluation's scores (None where nothing was
        left to do). `evaluated`: what comes after the steps of `position` is done.
        """
        scores = None
        while position.step < self.plan.last_step or not evaluated:
            self._train_epoch(position)
            scores = self._close_epoch(position)
            evaluated = True
        return scores

    def evaluate(self) -> Scores:
        """Scores over every test video, of the averaged weights where there are any. Raises Asked where the processes
        agree to stop.
        """
        if self.trainer.ema is None:
            return self._evaluate()
        with self.trainer.ema.in_place():
            return self._evaluate()

    def _evaluate(self) -> Scores:
        source = self.stop.watch(self.data.evaluation(), self.data.common_evaluation_steps)
        batches = progress(source, self.data.evaluation_steps, "evaluate", self.record.shows_progress)
        kept = self.scores_file
        if kept is not None:
            kept.begin()
        scores = evaluate(self.trainer.module, batches, self.trainer.transform, self.trainer.precision, self.failed,
                          on_logits=None if kept is None else kept.add)
        self.failed(())
        if kept is not None:
            kept.write(self.trainer.precision.device)
        return scores

    def _train_epoch(self, position: Position) -> None:
        steps = min(self.plan.steps_left(position), self.plan.last_step - position.step)
        if steps <= 0:
            return
        HERE.at("epoch %d: its first batch" % (position.epoch + 1))
        self.trainer.model.train()
        first = position.samples // self.plan.global_batch
        source = Prefetcher(self.data.training(position.epoch, position.samples, steps), self.trainer.precision.device)
        waited = 0.0
        text = "epoch %d/%d" % (position.epoch + 1, self.plan.end_epoch)
        per_step = by_step(source, self.trainer.slots.accumulate)
        for i, batches in enumerate(progress(per_step, first + steps, text, self.record.shows_progress, first)):
            if i == 0:
                self.meter.begin()
            HERE.at("epoch %d step %d: training" % (position.epoch + 1, position.step + 1))
            rows, applied = [], True
            for micro, batch in enumerate(batches):
                if batch.failures:
                    self.failed(batch.failures)
                applied = self.trainer.step(batch, position.step + 1, micro)
                rows.append(batch.index)
            position.step += 1
            position.samples += self.plan.global_batch
            self.meter.step(source.waited - waited)
            waited = source.waited
            self.record.samples(position.step, rows)
            self.bad_steps.note(applied, position.step, rows, batch)
            if position.step % LOG_INTERVAL == 0 or position.step == FIRST_LOG or i + 1 == steps:
                self._report(position)
            self._save_or_stop(position)
        self.meter.pause()

    def _save_or_stop(self, position: Position) -> None:
        if self.stop.agreed():
            self._end(position)
        if self.plan.save_every and position.step % self.plan.save_every == 0:
            HERE.at("step %d: saving" % position.step)
            self.meter.pause()
            self.record.save(position, evaluated=False)
            self.meter.begin()

    def _end(self, position: Position) -> NoReturn:
        HERE.at("step %d: saving, as it was asked to stop" % position.step)
        path = self.record.save(position, evaluated=False)
        self.record.settle()
        if self.record.failure:
            raise self.record.failure
        raise Stopped("stopped by %s after step %d%s; the same command with --resume goes on from there" % (
            describe(self.stop.signal), position.step, ", saved %s" % path if path else ""))

    def _close_epoch(self, position: Position) -> Scores:
        """What follows the steps of an epoch, or of the run: statistics, evaluation, record and checkpoint."""
        self.record.settle()  # what follows may start processes, which must not happen in the middle of other work
        done = self.plan.steps_left(position) == 0
        own = self.trainer.statistics()  # with these a run goes on where it ends within an epoch
        try:
            scores, of_last_step = self._assess(position.epoch + done)
        except Asked:
            self.trainer.put_statistics(own)
            self._end(position)
        if done:
            position.epoch, position.samples = position.epoch + 1, 0
        HERE.at("epoch %d: its end, saving" % position.epoch)
        save = position.step >= self.plan.last_step or (done and position.epoch % self.plan.save_frequency == 0)
        self.record.epoch(position, scores, self.meter.total(), None if done else own, save, of_last_step)
        return scores

    def _assess(self, epoch: int) -> Tuple[Scores, Optional[Scores]]:
        """The scores that count. Where weights are averaged they are the average's; then also those of the last step's
        weights. Each have BatchNorm statistics of their own.
        """
        scores = self._settle_and_evaluate(epoch)
        if self.trainer.ema is None:
            return scores, None
        with self.trainer.ema.in_place():
            return self._settle_and_evaluate(epoch), scores

    def _settle_and_evaluate(self, epoch: int) -> Scores:
        if self.plan.precise_bn:
            HERE.at("epoch %d: precise BN" % epoch)
            batches = self.data.statistics(epoch, min(PRECISE_BN_STEPS, self.plan.steps_per_epoch))
            self.trainer.refine_batchnorm(self.stop.watch(batches), self.failed)
        average_buffers(self.trainer.module)
        return self._evaluate()

    def _report(self, position: Position) -> None:
        self.failed(())  # what other processes met
        scores = self.trainer.metrics.compute(all_reduce_sum)
        self.trainer.metrics.reset()
        norm = None if self.trainer.gradient_norm is None else self.trainer.gradient_norm.mean()
        self.record.interval(position, scores, self.trainer.schedule(position.step), self.meter.interval(), norm,
                             self.trainer.precision.scaler.skipped)
