"""What a step asks of the device: nothing, but for one flag. Every number that is read makes the host wait for it."""

import pytest
import torch
from test_amp import BF16, CPU, need
from test_loop import CLASSES, _Batch, _batches, _net

from data.batch_mix import BatchMix, MixOptions
from train.amp import Precision
from train.ema import AveragedWeights
from train.gradient_norm import GradientNorm
from train.loop import Slots, Trainer
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate

READING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")  # results of any size


def _reads(work):
    """How often the host reads a number from a tensor, in Python, in C++ or in the backward pass, while `work` runs."""
    with torch.autograd.profiler.profile() as profiler:
        work()
    return sum(event.name.replace("aten::", "") in READING for event in profiler.function_events)


pytestmark = pytest.mark.skipif(_reads(lambda: torch.isfinite(torch.ones(1))) > 0,
                                reason="this PyTorch reads numbers of its own, which no device knows")


def _trainer(level, dtype, *, everything):
    need(level, dtype)
    net, precision = _net(), Precision(level, dtype, CPU, 128.0)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.01)
    options = {}
    if everything:
        mix = BatchMix(MixOptions(0.8, 1.0, 0.5, 0.1), CLASSES, 1)
        options = {"slots": Slots(0, 1, 2), "mix": mix, "gradient_norm": GradientNorm(0.5, CPU),
                   "ema": AveragedWeights(precision, net, 0.9)}
    trainer = Trainer(net, optimizer, LearningRate(0.01, 2), precision,
                      lambda batch: batch.clip.to(precision.input_dtype, copy=True), 1, **options)
    return trainer


@pytest.mark.parametrize("level, dtype", [("O0", torch.float32), ("O2", BF16)])
@pytest.mark.parametrize("everything", [False, True])
def test_a_step_reads_one_flag_whatever_is_on(level, dtype, everything):
    trainer = _trainer(level, dtype, everything=everything)
    batches = _batches()

    def steps():
        for number, batch in enumerate(batches, 1):
            for micro in range(trainer.slots.accumulate):
                assert trainer.step(batch, number, micro)

    steps()
    assert _reads(steps) <= len(batches)


def test_a_planted_read_is_found():
    trainer = _trainer("O0", torch.float32, everything=False)
    batch = _batches()[0]
    before = _reads(lambda: trainer.step(batch, 1))
    trainer.module[2].register_forward_hook(lambda module, inputs, output: print(output.sum().item()))
    trainer.module[0].weight.register_hook(lambda gradient: gradient * float(gradient.norm() > -1))
    assert _reads(lambda: trainer.step(_Batch(batch.clip, batch.label), 2)) == before + 2
