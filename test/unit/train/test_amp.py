"""The levels: what is half and what is not, the loss scale's life, and that a level never changes the recipe."""

import copy

import pytest
import torch
from features import assert_close, needs_half
from torch import nn

from network import build_network
from train.amp import LEVELS, LossScaler, Precision, resolve_dtype
from train.optim import build_sgd, parameter_groups

CPU = torch.device("cpu")
BF16 = torch.bfloat16


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 8, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8, 5))


def _step(precision, net, optimizer, clip, labels):
    with precision.cast():
        logits = net(clip.to(precision.input_dtype))
    for parameter in net.parameters():
        parameter.grad = None
    precision.backward(nn.functional.cross_entropy(logits.float(), labels))
    return precision.step(optimizer)


def _train(level, dtype, steps=20, loss_scale=None):
    net = _net()
    precision = Precision(level, dtype, CPU, loss_scale)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.05)
    torch.manual_seed(1)
    clips, labels = torch.randn(steps, 6, 3, 2, 2, 2), torch.randint(0, 5, (steps, 6))
    for clip, label in zip(clips, labels):
        _step(precision, net, optimizer, clip, label)
    return precision, net, optimizer


@pytest.mark.parametrize(
    "level, weight, norm",
    [("O0", torch.float32, torch.float32), pytest.param("O1", torch.float32, torch.float32, marks=needs_half),
     pytest.param("O2", BF16, torch.float32, marks=needs_half), pytest.param("O3", BF16, BF16, marks=needs_half)],
)
def test_types_by_level(level, weight, norm):
    precision, net, _ = _train(level, resolve_dtype(level, "bf16", None), steps=2)
    assert net[0].weight.dtype == weight and net[1].weight.dtype == norm and net[1].running_mean.dtype == norm
    assert all(not v.is_floating_point() or v.dtype == torch.float32 for v in precision.state_dict_of(net).values())


def test_the_table_is_apexes():
    assert LEVELS["O0"].loss_scale == LEVELS["O3"].loss_scale == 1.0
    assert LEVELS["O1"].loss_scale == LEVELS["O2"].loss_scale == "dynamic"
    assert [row.master_weights for row in LEVELS.values()] == [False, False, True, False]


@needs_half
def test_the_optimizer_steps_fp32_masters_and_the_half_weights_follow_exactly():
    precision, net, optimizer = _train("O2", BF16)
    stepped = {n: p for group in optimizer.param_groups for n, p in zip(group["names"], group["params"])}
    saved = precision.state_dict_of(net)
    for name, parameter in net.named_parameters():
        assert stepped[name].dtype == torch.float32
        assert torch.equal(saved[name], stepped[name].detach())
        assert torch.equal(parameter.detach().float(), stepped[name].detach().to(parameter.dtype).float())
    assert not torch.equal(saved["0.weight"], net[0].weight.detach().float())  # the master holds more than half can


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_a_level_computed_in_fp32_trains_as_o0_does_whatever_the_loss_scale(level):
    exact, plain, _ = _train("O0", torch.float32)
    precision, net, _ = _train(level, torch.float32, loss_scale=128.0)
    for a, b in zip(exact.state_dict_of(plain).values(), precision.state_dict_of(net).values()):
        assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert precision.label == level + " (computed fp32)" and exact.label == "O0"


@needs_half
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_half_levels_stay_near_fp32(level):
    exact, plain, _ = _train("O0", torch.float32)
    precision, net, _ = _train(level, BF16, loss_scale=128.0)
    reference = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    half = torch.cat(
        [v.reshape(-1) for n, v in precision.state_dict_of(net).items() if n in dict(net.named_parameters())])
    moved = torch.cat([p.detach().reshape(-1) for p in _net().parameters()]) - reference
    assert 0 < (half - reference).norm() < (0.3 if level == "O3" else 0.1) * moved.norm()
    assert precision.label == level


@needs_half
def test_an_overflow_changes_nothing_halves_a_dynamic_scale_and_is_counted():
    net = _net()
    precision = Precision("O2", BF16, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.05)
    clip, labels = torch.randn(6, 3, 2, 2, 2), torch.randint(0, 5, (6,))
    assert _step(precision, net, optimizer, clip, labels)
    before = copy.deepcopy(precision.state_dict_of(net))
    assert not _step(precision, net, optimizer, clip * float("inf"), labels)
    after = precision.state_dict_of(net)
    assert all(torch.equal(after[n], before[n]) for n, _ in net.named_parameters())
    assert precision.scaler.scale == 2.0**15 and precision.scaler.skipped == 1


def test_dynamic_scale_doubles_after_2000_good_steps_up_to_a_limit():
    scaler = LossScaler("dynamic")
    assert scaler.scale == 2.0**16
    for _ in range(1999):
        scaler.update(False)
    assert scaler.scale == 2.0**16
    scaler.update(False)
    assert scaler.scale == 2.0**17
    scaler.update(True)
    assert scaler.scale == 2.0**16
    for _ in range(2000 * 12):
        scaler.update(False)
    assert scaler.scale == 2.0**24


def test_scaler_state_comes_back():
    scaler = LossScaler("dynamic")
    for overflow in (False, True, False, False):
        scaler.update(overflow)
    other = LossScaler("dynamic")
    other.load_state_dict(scaler.state_dict())
    assert vars(other) == vars(scaler)
    fixed = LossScaler(128.0)
    fixed.load_state_dict(scaler.state_dict())
    assert fixed.scale == 128.0


def test_auto_takes_what_the_device_says():
    assert resolve_dtype("O2", "auto", None) == torch.float32
    assert resolve_dtype("O2", "auto", torch.float16) == torch.float16
    assert resolve_dtype("O0", "bf16", torch.float16) == torch.float32
    assert resolve_dtype("O2", "bf16", torch.float16) == BF16


@needs_half
@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_the_real_network_trains_a_step_in_half(level):
    torch.manual_seed(0)
    net = build_network("RESNET50_3D_GCN_X5", 5)
    precision = Precision(level, BF16, CPU, 128.0)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-4, False), 0.01)
    before = precision.state_dict_of(net)["classifier.weight"].clone()
    assert _step(precision, net, optimizer, torch.randn(4, 3, 4, 32, 32), torch.tensor([0, 1, 2, 3]))
    after = precision.state_dict_of(net)["classifier.weight"]
    assert torch.isfinite(after).all() and not torch.equal(before, after)
