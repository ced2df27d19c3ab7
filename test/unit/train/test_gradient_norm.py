"""Gradients are clipped by the norm of all of them, unscaled, at every level and by both engines."""

import apex_stand_in
import numpy as np
import pytest
import torch
from features import assert_close
from test_amp import BF16, CPU, need, one_batch, small_net
from torch.nn import functional

from train.amp import Precision
from train.amp_choice import build_precision
from train.gradient_norm import GradientNorm, total_norm
from train.optim import build_sgd, parameter_groups

LIMIT = 0.25


def _gradients():
    torch.manual_seed(3)
    return [torch.randn(3, 4), torch.randn(5), torch.randn(())]


def test_by_hand():
    gradients, before = _gradients(), _gradients()
    flat = np.concatenate([g.numpy().ravel() for g in before]).astype(np.float64)
    norm = float(np.sqrt((flat ** 2).sum()))
    limit = GradientNorm(LIMIT, CPU)
    limit(gradients)
    for gradient, was in zip(gradients, before):
        assert_close(gradient, was * (LIMIT / norm), rtol=1e-5)
    GradientNorm(1e9, CPU)(before)
    assert all(torch.equal(gradient, was) for gradient, was in zip(before, _gradients()))  # below the limit: to the bit
    limit([torch.tensor([3.0, 4.0])])
    assert limit.mean() == pytest.approx((norm + 5) / 2, rel=1e-6) and limit.mean() is None


def test_an_infinity_is_not_counted_and_no_half_sum_overflows():
    limit = GradientNorm(LIMIT, CPU)
    limit([torch.tensor([float("inf")]), torch.ones(2)])
    assert limit.mean() is None
    assert total_norm([torch.full((4,), 60000.0, dtype=torch.float16)]).item() == 120000


def _norm_and_weights(precision, accumulate=1, limit=LIMIT):
    """The norm that was found, how far the weights moved, and the weights, after one step at rate 1."""
    net = small_net()
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 0.0, False), 1.0)
    precision.attach(net, optimizer)
    start = {name: p.detach().clone() for name, p in small_net().named_parameters()}
    found = GradientNorm(limit, CPU)
    precision.begin()
    for micro in range(accumulate):
        clip, labels = one_batch(micro)
        with precision.cast():
            logits = net(clip.to(precision.input_dtype))
        precision.backward(functional.cross_entropy(logits.float(), labels) / accumulate, micro + 1 == accumulate)
    assert precision.step(optimizer, found)
    state = precision.state_dict_of(net)
    moved = torch.cat([(state[name] - value).reshape(-1) for name, value in start.items()]).norm().item()
    return found.mean(), moved, state


@pytest.mark.parametrize("level, dtype", [("O1", torch.float32), ("O2", torch.float32), ("O2", BF16), ("O3", BF16)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_norm_is_of_unscaled_gradients_at_every_level(level, dtype, accumulate):
    need(level, dtype)
    norm, moved, _ = _norm_and_weights(Precision("O0", torch.float32, CPU), accumulate)
    assert moved == pytest.approx(1.9 * LIMIT, rel=1e-4) and norm > LIMIT  # Nesterov's first step is 1.9 gradients long
    other, moved, _ = _norm_and_weights(Precision(level, dtype, CPU, 128.0), accumulate)
    assert other == pytest.approx(norm, rel=1e-5 if dtype == torch.float32 else 0.05)
    assert moved == pytest.approx(1.9 * LIMIT, rel=1e-4 if level != "O3" else 0.05)


@pytest.mark.parametrize("loss_scale", [128.0, "dynamic"])
def test_apex_clips_as_the_native_engine_does(monkeypatch, loss_scale):
    need("O2", BF16)
    native = _norm_and_weights(Precision("O2", BF16, CPU, loss_scale), 2)
    apex_stand_in.install(monkeypatch)
    found = _norm_and_weights(build_precision("O2", "apex", "auto", None, CPU, loss_scale), 2)
    assert found[0] == native[0]
    assert all(torch.equal(found[2][name], value) for name, value in native[2].items())
