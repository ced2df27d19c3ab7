"""The levels: what is half and what is not, the loss scale's life, and that a level never changes the recipe."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch
from features import HALF_ON_CPU
from torch import nn

from dataset import motion10
from network import build_network
from network.glore import GloReUnit
from train import amp
from train.amp import LEVELS, LossScaler, Precision, resolve_dtype
from train.amp_choice import build_precision, fault_of
from train.checkpoint import load_optimizer_state, optimizer_state
from train.config import OptionError
from train.optim import build_sgd, parameter_groups
from train.precise_bn import reestimate_statistics

CPU = torch.device("cpu")
BF16 = torch.bfloat16


def need(level, dtype):
    """Skips where this PyTorch cannot train in that type on the CPU."""
    fault = fault_of(level, dtype, CPU) if dtype != torch.float32 else ""
    if fault:
        pytest.skip(fault)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 8, 1), nn.BatchNorm3d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 8, 5))


def one_batch(seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, 2, 2, 2, generator=generator), torch.randint(0, 5, (6,), generator=generator)


def step(precision, net, optimizer, clip, labels):
    precision.begin()
    with precision.cast():
        logits = net(clip.to(precision.input_dtype))
    precision.backward(nn.functional.cross_entropy(logits.float(), labels))
    return precision.step(optimizer)


def train(precision, steps=20):
    """A small network and its optimizer after some steps."""
    net = small_net()
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.05)
    precision.attach(net, optimizer)
    torch.manual_seed(1)
    clips, labels = torch.randn(steps, 6, 3, 2, 2, 2), torch.randint(0, 5, (steps, 6))
    for clip, label in zip(clips, labels):
        step(precision, net, optimizer, clip, label)
    return net, optimizer


def _train(level, dtype, steps=20, loss_scale=None):
    need(level, dtype)
    precision = Precision(level, dtype, CPU, loss_scale)
    return (precision,) + train(precision, steps)


@pytest.mark.parametrize(
    "level, weight, norm",
    [("O0", torch.float32, torch.float32), ("O1", torch.float32, torch.float32), ("O2", BF16, torch.float32),
     ("O3", BF16, BF16)],
)
def test_types_by_level(level, weight, norm):
    precision, net, _ = _train(level, resolve_dtype(level, "bf16", None), steps=2)
    assert net[0].weight.dtype == weight and net[1].weight.dtype == norm and net[1].running_mean.dtype == norm
    assert all(not v.is_floating_point() or v.dtype == torch.float32 for v in precision.state_dict_of(net).values())


def test_the_table_is_apexes():
    assert LEVELS["O0"].loss_scale == LEVELS["O3"].loss_scale == 1.0
    assert LEVELS["O1"].loss_scale == LEVELS["O2"].loss_scale == "dynamic"
    assert [row.master_weights for row in LEVELS.values()] == [False, False, True, False]


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
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert precision.label == level + " (computed fp32)" and exact.label == "O0"


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_half_levels_stay_near_fp32(level):
    exact, plain, _ = _train("O0", torch.float32)
    precision, net, _ = _train(level, BF16, loss_scale=128.0)
    reference = torch.cat([p.detach().reshape(-1) for p in plain.parameters()])
    half = torch.cat(
        [v.reshape(-1) for n, v in precision.state_dict_of(net).items() if n in dict(net.named_parameters())])
    moved = torch.cat([p.detach().reshape(-1) for p in small_net().parameters()]) - reference
    assert 0 < (half - reference).norm() < (0.3 if level == "O3" else 0.1) * moved.norm()
    assert precision.label == level


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("loss_scale", ["dynamic", 128.0])
def test_an_overflow_changes_nothing_halves_a_dynamic_scale_and_is_counted(level, loss_scale):
    precision, net, optimizer = _train(level, BF16, 3, loss_scale)
    clip, labels = one_batch()
    before = copy.deepcopy(precision.state_dict_of(net))
    halves, momenta = copy.deepcopy(net.state_dict()), optimizer_state(optimizer)
    momenta = {name: value.clone() for name, value in momenta.items()}
    assert not step(precision, net, optimizer, clip * float("inf"), labels)
    assert_equal(precision.state_dict_of(net), before)  # BatchNorm's statistics and counters among them
    assert_equal(net.state_dict(), halves)
    assert_equal(optimizer_state(optimizer), momenta)
    assert precision.scaler.scale == (2.0**15 if loss_scale == "dynamic" else 128.0)
    assert precision.scaler.skipped == 1
    assert step(precision, net, optimizer, clip, labels)
    assert precision.scaler.skipped == 1 and torch.isfinite(net[1].running_mean).all()
    assert int(net[1].num_batches_tracked) == 4


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_real_overflow_of_fp16_finds_a_scale_that_fits():
    need("O2", torch.float16)
    precision = Precision("O2", torch.float16, CPU, 2.0**24)
    precision.scaler.dynamic = True
    net, _ = train(precision, steps=30)
    skipped = precision.scaler.skipped
    assert 0 < skipped < 20 and precision.scaler.scale == 2.0 ** (24 - skipped)
    assert int(net[1].num_batches_tracked) == 30 - skipped
    assert all(torch.isfinite(v).all() for v in precision.state_dict_of(net).values())


def test_half_and_master_never_drift_apart():
    precision, net, optimizer = _train("O2", BF16, steps=0)
    stepped = {n: p for group in optimizer.param_groups for n, p in zip(group["names"], group["params"])}
    for seed in range(200):
        clip, labels = one_batch(seed)
        step(precision, net, optimizer, clip * (float("inf") if seed % 10 == 9 else 1.0), labels)
        for name, parameter in net.named_parameters():
            assert torch.equal(parameter, stepped[name].to(parameter.dtype)), (seed, name)
    assert precision.scaler.skipped == 20


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


def test_a_dynamic_scale_does_not_start_from_a_fixed_one():
    for level in ("O0", "O3"):
        fixed = LossScaler(LEVELS[level].loss_scale)
        dynamic = LossScaler("dynamic")
        dynamic.load_state_dict(fixed.state_dict())
        assert (dynamic.scale, dynamic.good_steps) == (2.0**16, 0)


@pytest.mark.parametrize("there", ["O1", "O2"])
def test_a_checkpoint_passes_between_levels_unrounded(there):
    exact, plain, optimizer = _train("O0", torch.float32, steps=3)
    precision, net, half_optimizer = _train(there, BF16, steps=0)
    precision.load_state_dict_into(net, copy.deepcopy(exact.state_dict_of(plain)))
    load_optimizer_state(half_optimizer, optimizer_state(optimizer))
    assert_equal(precision.state_dict_of(net), exact.state_dict_of(plain))
    assert_equal(optimizer_state(half_optimizer), optimizer_state(optimizer))
    assert step(precision, net, half_optimizer, *one_batch())
    again, back, _ = _train("O0", torch.float32, steps=0)
    again.load_state_dict_into(back, precision.state_dict_of(net))
    assert_equal(again.state_dict_of(back), precision.state_dict_of(net))


def test_auto_takes_what_the_device_says():
    assert resolve_dtype("O2", "auto", None) == torch.float32
    assert resolve_dtype("O2", "auto", torch.float16) == torch.float16
    assert resolve_dtype("O0", "bf16", torch.float16) == torch.float32
    assert resolve_dtype("O2", "bf16", torch.float16) == BF16


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_the_real_network_trains_a_step_in_half(level):
    need(level, BF16)
    torch.manual_seed(0)
    net = build_network("RESNET50_3D_GCN_X5", 5)
    precision = Precision(level, BF16, CPU, 128.0)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-4, False), 0.01)
    before = precision.state_dict_of(net)["classifier.weight"].clone()
    assert step(precision, net, optimizer, torch.randn(4, 3, 4, 32, 32), torch.tensor([0, 1, 2, 3]))
    after = precision.state_dict_of(net)["classifier.weight"]
    assert torch.isfinite(after).all() and not torch.equal(before, after)


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_on_any_pytorch_a_level_trains_in_half_or_says_that_it_does_not(level, dtype):
    half = {"fp16": torch.float16, "bf16": BF16}[dtype]
    fault = fault_of(level, half, CPU)
    precision = build_precision(level, "native", "auto", half, CPU, 128.0)
    train(precision, steps=2)
    assert precision.label == level + (" (computed fp32)" if fault else "")
    assert precision.half != bool(fault) and fault in precision.description and "\n" not in precision.description
    if fault:
        with pytest.raises(OptionError, match="--amp-dtype %s" % dtype):
            build_precision(level, "native", dtype, half, CPU)
    else:
        assert build_precision(level, "native", dtype, None, CPU).dtype == half


def test_without_autocast_o1_is_computed_in_fp32(monkeypatch):
    def none(device_type, dtype):
        raise ValueError("this PyTorch has no autocast for %s" % device_type)
    monkeypatch.setattr("train.amp._autocast", none)
    precision = build_precision("O1", "native", "auto", BF16, CPU, 128.0)
    assert precision.label == "O1 (computed fp32)"
    assert precision.description == ("precision O1, computed in fp32, loss scale 128: this PyTorch has no autocast for "
                                     "cpu; the level's bookkeeping stays")
    train(precision, steps=1)
    with pytest.raises(OptionError, match="--amp-dtype bf16: .* no autocast for cpu; take auto or fp32"):
        build_precision("O1", "native", "bf16", None, CPU)


@pytest.mark.parametrize("layer", [nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.MaxPool3d])
def test_without_a_kernel_for_half_the_level_is_computed_in_fp32(monkeypatch, layer):
    need("O2", BF16)
    forward = layer.forward

    def full_only(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError("not implemented for 'Half'\nand more")
        return forward(self, x)
    monkeypatch.setattr(layer, "forward", full_only)
    precision = build_precision("O2", "native", "auto", BF16, CPU)
    assert precision.label == "O2 (computed fp32)" and "not implemented for 'Half';" in precision.description
    with pytest.raises(OptionError, match="--amp-dtype fp16"):
        build_precision("O2", "native", "fp16", BF16, CPU)


def test_the_old_autocast_of_a_device_is_found_and_never_computes_in_another_type(monkeypatch):
    made = []

    class Autocast:
        def __init__(self, enabled=True):
            made.append(enabled)
    monkeypatch.delattr(torch, "autocast", raising=False)
    monkeypatch.setattr(torch, "npu", SimpleNamespace(amp=SimpleNamespace(autocast=Autocast)), raising=False)
    amp._autocast("npu", torch.float16)
    assert made == [True]
    with pytest.raises(ValueError, match="fp16 alone"):
        amp._autocast("npu", BF16)


def test_the_trial_draws_nothing():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    build_precision("O2", "native", "auto", BF16, CPU)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("fine_tune", [False, True])
def test_the_recipe_is_the_same_at_every_level(fine_tune):
    recipes = []
    for level in LEVELS:
        net = build_network("RESNET50_3D_GCN_X5", 5)
        precision = Precision(level, BF16 if level != "O0" else torch.float32, CPU)
        optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-4, fine_tune), 0.01)
        keys = ("group", "names", "lr_multiplier", "weight_decay", "momentum", "nesterov", "lr")
        recipes.append([[group[key] for key in keys] for group in optimizer.param_groups])
    assert recipes[1:] == recipes[:1] * 3
    assert {(row[2], row[3]) for row in recipes[0]} >= {(0.5, 1e-4), (1.0, 1e-4)} and all(r[5] for r in recipes[0])


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
def test_precise_bn_moves_statistics_alone_at_every_level(level):
    precision, net, _ = _train(level, BF16, steps=2)
    before = copy.deepcopy(precision.state_dict_of(net))
    halves = copy.deepcopy(dict(net.named_parameters()))

    def forward():
        with precision.cast():
            net(one_batch()[0].to(precision.input_dtype))
    reestimate_statistics(net, [forward])
    changed = {name for name, value in precision.state_dict_of(net).items() if not torch.equal(value, before[name])}
    assert changed == {"1.running_mean", "1.running_var"}
    assert all(torch.equal(p, halves[name]) for name, p in net.named_parameters())


@pytest.mark.parametrize("level, band", [("O1", 0.01), ("O2", 0.01), ("O3", 0.03)])
def test_training_curves_stay_within_a_band_of_o0(level, band):
    """Mean loss of ten steps each, a GloRe network from scratch on four motions of motion10; bands are absolute."""
    need(level, BF16)
    curve, exact = _curve(level, BF16), _curve("O0", torch.float32)
    assert exact[-1] < 0.4 * exact[0]
    assert max(abs(a - b) for a, b in zip(curve, exact)) < band, (curve, exact)


def _motions():
    """Small clips of motion10: (40, 3, 8, 16, 16) normalised, (40,) labels."""
    clips = [torch.from_numpy(motion10.make_clip(motion, group, 1)[::motion10.HOLD][:8].copy()).permute(3, 0, 1, 2)
             for motion in ("Boil", "Down", "Flicker", "Jump") for group in range(1, 11)]
    small = nn.functional.interpolate(torch.stack(clips).float(), (8, 16, 16), mode="trilinear", align_corners=False)
    return (small - small.mean()) / small.std(), torch.arange(4).repeat_interleave(10)


@functools.lru_cache(None)
def _curve(level, dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 16, 3, padding=1, bias=False), nn.BatchNorm3d(16), nn.ReLU(),
                        nn.MaxPool3d((1, 2, 2)), nn.Conv3d(16, 32, 3, padding=1, bias=False), nn.BatchNorm3d(32),
                        nn.ReLU(), GloReUnit(32, 4), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(32, 4))
    precision = Precision(level, dtype, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-4, False), 0.05)
    (clips, labels), generator, losses = _motions(), torch.Generator().manual_seed(2), []
    for _ in range(30):
        chosen = torch.randperm(len(clips), generator=generator)[:8]
        precision.begin()
        with precision.cast():
            logits = net(clips[chosen].to(precision.input_dtype))
        loss = nn.functional.cross_entropy(logits.float(), labels[chosen])
        precision.backward(loss)
        assert precision.step(optimizer)
        losses.append(loss.item())
    return [sum(losses[i:i + 10]) / 10 for i in range(0, 30, 10)]


@pytest.mark.parametrize("wrong", [None, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtypes", [(torch.float32,), (torch.float64,), (BF16, torch.float32), (torch.float16,)])
def test_one_number_that_is_none_is_found_and_nothing_is_changed(dtypes, wrong):
    if not HALF_ON_CPU and dtypes[0] in (BF16, torch.float16):
        pytest.skip("no half precision on the CPU in this PyTorch")
    tensors = [torch.linspace(-3, 60000, 40, dtype=torch.float64).to(dtype).view(8, 5) for dtype in dtypes * 2]
    if wrong is not None:
        tensors[-1][7, 4] = wrong
    before = [t.clone() for t in tensors]
    assert amp.all_finite(tensors) is (wrong is None)
    assert all(torch.equal(t[:7], was[:7]) for t, was in zip(tensors, before))
    assert wrong is not None or torch.equal(tensors[-1], before[-1])
