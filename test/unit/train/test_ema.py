"""The averaged weights: their formula, that training does not notice them, and that the network comes back exactly."""

import copy

import pytest
import torch
from features import assert_close
from test_amp import BF16, CPU, need, one_batch, small_net, step
from test_loop import _Batch

from train.amp import Precision
from train.ema import AveragedWeights
from train.loop import Trainer
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate

LEVELS = [("O0", torch.float32), ("O2", torch.float32), ("O2", BF16), ("O3", BF16)]


def _prepared(level, dtype, decay=0.6):
    need(level, dtype)
    net, precision = small_net(), Precision(level, dtype, CPU, 1.0)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.05)
    return net, precision, optimizer, AveragedWeights(precision, net, decay)


def _train(net, precision, optimizer, ema, steps, seen=None):
    for seed in range(steps):
        assert step(precision, net, optimizer, *one_batch(seed))
        if ema is not None:
            ema.update()
        if seen is not None:
            seen.append(copy.deepcopy(precision.state_dict_of(net)))


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("level, dtype", LEVELS)
def test_the_formula(level, dtype):
    net, precision, optimizer, ema = _prepared(level, dtype)
    expected, seen = copy.deepcopy(precision.state_dict_of(net)), []
    _train(net, precision, optimizer, ema, 12, seen)
    for number, state in enumerate(seen, 1):
        decay = min(0.6, (1 + number) / (10 + number))
        expected = {name: decay * value.double() + (1 - decay) * state[name] for name, value in expected.items()}
    for name, value in ema.weights().items():
        if value.is_floating_point():
            assert value.dtype == torch.float32
            assert_close(value, expected[name].float(), rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(value, seen[-1][name])
    assert list(ema.weights()) == list(seen[-1])


@pytest.mark.parametrize("level, dtype", LEVELS)
def test_the_network_holds_the_average_for_a_while_and_training_does_not_notice(level, dtype):
    net, precision, optimizer, ema = _prepared(level, dtype)
    alone, its_precision, its_optimizer, _ = _prepared(level, dtype)
    _train(net, precision, optimizer, ema, 3)
    before, average = copy.deepcopy(precision.exact(net)), copy.deepcopy(ema.weights())
    with ema.in_place():
        for name, value in precision.state_dict_of(net).items():
            rounded = dtype == BF16 and level == "O3"
            assert torch.equal(value, average[name].bfloat16().float() if rounded and value.dim() else average[name])
        net[1].running_mean.fill_(2.0)
    assert_equal(precision.exact(net), before)
    found = ema.weights()
    assert found["1.running_mean"].tolist() == [2.0] * 8
    assert all(torch.equal(found[name], average[name]) for name in average if "running" not in name)
    _train(net, precision, optimizer, ema, 3)
    for count in (3, 3):
        _train(alone, its_precision, its_optimizer, None, count)
    assert_equal(its_precision.exact(alone), precision.exact(net))


def test_it_goes_on_to_the_bit_and_with_a_decay_of_its_own():
    net, precision, optimizer, ema = _prepared("O0", torch.float32)
    _train(net, precision, optimizer, ema, 4)
    other = AveragedWeights(precision, net, 0.6)
    other.load_state_dict(copy.deepcopy(ema.state_dict()))
    for each in (ema, other):
        each.update()
    assert_equal(other.weights(), ema.weights())
    assert (other.steps, other.state_dict()["decay"]) == (5, 0.6)
    other.restart()
    assert other.steps == 0
    assert_equal(other.weights(), precision.exact(net))


def test_a_step_that_overflows_is_not_averaged():
    need("O2", BF16)
    net, precision, optimizer, ema = _prepared("O2", BF16)
    trainer = Trainer(net, optimizer, LearningRate(0.1), precision, lambda batch: batch.clip.to(BF16), 1, ema=ema)
    clip, labels = one_batch()
    assert not trainer.step(_Batch(clip * float("inf"), labels), 1) and ema.steps == 0
    assert trainer.step(_Batch(clip, labels), 2) and ema.steps == 1
