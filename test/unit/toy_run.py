"""A whole run of a network of some hundred weights, real but for its clips, for tests that stop it and go on."""
import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from data.loaders import PRECISE_BN_EPOCHS, TrainSampler, eval_indices
from train import checkpoint, distributed
from train.amp import Precision
from train.bad_steps import BadSteps
from train.config import TrainConfig
from train.loop import Slots, Trainer
from train.optim import build_sgd, parameter_groups
from train.record import RunRecord
from train.run import Plan, Position, Run
from train.run_state import DataFacts, RunState, keep_global_batch
from train.schedule import LearningRate
from train.speed import SpeedMeter
from train.stopping import StopRequest

CPU = torch.device("cpu")
CLASSES, TRAIN, TEST = 3, 26, 7
CONFIG = TrainConfig(dataset="toy", network="TOY", batch_size=4, end_epoch=3, save_every=2, lr_base=0.05,
                     warmup_steps=4, keep=3, max_bad_steps=3)


class Batch(NamedTuple):
    clip: torch.Tensor
    label: torch.Tensor
    index: torch.Tensor
    readable: Any = None
    failures: Any = ()


def clips(ids):
    """Clips that follow from (epoch, sample)."""
    made = [torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1000 * epoch + sample))
            for epoch, sample in ids]
    rows = torch.tensor([sample for _, sample in ids])
    return Batch(torch.stack(made), rows % CLASSES, rows, torch.ones(len(rows), dtype=torch.bool))


class ToyData:
    """What ClipStreams is to a run. `spoilt` rows give clips that hold no numbers."""

    def __init__(self, config, rank, world, spoilt=()):
        self.sampler = TrainSampler(TRAIN, config.batch_size, rank, world, 1, accumulate=config.accumulate)
        self.rows, self.spoilt = list(eval_indices(TEST, rank, world)), spoilt
        self.evaluation_steps = -(-len(self.rows) // 2)
        self.common_evaluation_steps = -(-(TEST // world) // 2)

    def training(self, epoch, samples, steps):
        self.sampler.set_position(epoch, samples, steps)
        for ids in self.sampler:
            batch = clips(ids)
            bad = [i for i, (_, sample) in enumerate(ids) if sample in self.spoilt and epoch < PRECISE_BN_EPOCHS]
            batch.clip[bad] = float("nan")
            yield batch

    def statistics(self, epoch, steps):
        return self.training(PRECISE_BN_EPOCHS + epoch, 0, steps)

    def evaluation(self):
        for start in range(0, len(self.rows), 2):
            yield clips([(-1, row) for row in self.rows[start:start + 2]])


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
                         nn.Linear(4 * 2 * 16, CLASSES))


class ToyJob:
    """As train_model.Job, with the toys."""

    def __init__(self, folder, config=CONFIG, spoilt=(), last_step=0, lists=("a", "b"), log_samples=True,
                 beside=False):
        rank, world = distributed.rank(), distributed.world_size()
        self.folder, self.world = Path(str(folder)), world
        checkpoints = checkpoint.Checkpoints(self.folder / "checkpoints", "t", config.keep)
        config = dataclasses.replace(config, resume=checkpoints.choose(config.resume))
        self.saved = checkpoints.load(config.resume) if config.resume else None
        if self.saved:
            config = keep_global_batch(config, self.saved, world)
        data = ToyData(config, rank, world, spoilt)
        net, precision = network(), Precision(config.level, torch.float32, CPU, config.loss_scale)
        optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
        schedule = LearningRate(config.lr_base, config.warmup_steps)
        self.trainer = Trainer(distributed.wrap(net, CPU), optimizer, schedule, precision, lambda b: b.clip.clone(), 1,
                               Slots(rank, world, config.accumulate))
        self.bad_steps = BadSteps(self.trainer, config.max_bad_steps, self.folder, "video{}".format, rank == 0)
        size = data.sampler.global_batch
        facts = DataFacts("toy", list("abc"), TRAIN, *(name * 64 for name in lists))
        self.state = RunState(config, self.trainer, facts, size, self.bad_steps)
        self.record = RunRecord(self.folder, "t", checkpoints, self.state.snapshot, self.state.state_dict, rank == 0,
                                beside)
        self.record._drawing = False  # takes as long as the run
        plan = Plan(config.end_epoch, TRAIN, size, last_step or TRAIN // size * config.end_epoch, config.precise_bn,
                    config.save_frequency, config.save_every)
        self.stop = StopRequest(CPU)
        self.run = Run(self.trainer, plan, data, self.record, SpeedMeter(CPU, size), lambda failures: None, self.stop,
                       self.bad_steps)
        self.position, self.evaluated = Position(), True
        if self.saved:
            self.position, self.evaluated, self.record.best = self.state.resume(self.saved)
        self.log_samples = log_samples

    def execute(self):
        self.record.open("samples.rank-%d.jsonl" % distributed.rank() if self.log_samples else None)
        try:
            with self.stop:
                if self.saved and (self.position.step < self.run.plan.last_step or not self.evaluated):
                    self.state.train_on(self.saved)
                scores = self.run.fit(self.position, self.evaluated) or self.run.evaluate()
                result = self.state.result(scores, self.position, self.run.meter.total(), self.world)
                self.record.finish(result, self.state.final_weights())
        finally:
            self.record.close()
        return self


def run(folder, **changes):
    """One run, or what is left of it where there is a checkpoint."""
    options = {name: changes.pop(name) for name in ("spoilt", "last_step", "lists", "log_samples", "beside")
               if name in changes}
    return ToyJob(folder, dataclasses.replace(CONFIG, **changes), **options).execute()


def same(one, other):
    """Whether two files, or dictionaries, hold equal tensors and numbers; the time taken left out."""
    if isinstance(one, Path):
        one, other = torch.load(str(one)), torch.load(str(other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one if k not in ("seconds", "config"))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def lost_or_twice(folder, world=1, size=4):
    """What is wrong with the samples of the steps: a step that was repeated takes the same, an epoch each once, save
    those that make no whole step of `size`.
    """
    steps = {}
    for rank in range(world):
        of_rank = {}
        path = Path(str(folder)) / ("samples.rank-%d.jsonl" % rank)
        for line in path.read_text().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError):  # torn by a kill
                row = json.loads(line)
                if of_rank.setdefault(row["step"], row["rows"]) != row["rows"]:
                    return "step %(step)d repeats with other samples" % row
        for step, rows in of_rank.items():
            steps.setdefault(step, []).extend(rows)
    per_epoch = TRAIN // size
    for epoch in range(CONFIG.end_epoch):
        met = [row for step in range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1) for row in steps[step]]
        if len(met) != len(set(met)) or len(met) != per_epoch * size:
            return "epoch %d meets %s" % (epoch, sorted(met))
    return ""
