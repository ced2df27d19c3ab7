"""apex behind our interface, against a stand-in: what it is asked, that the recipe stays, and who is refused."""

import sys
import types

import apex_stand_in
import pytest
import torch
from test_amp import BF16, CPU, need, one_batch, small_net, step, train

from network.glore import GloReUnit
from train.amp import LossScaler, Precision
from train.amp_apex import ApexPrecision, load_apex
from train.amp_choice import build_precision
from train.config import OptionError
from train.optim import build_sgd, parameter_groups


def _apex(monkeypatch, level, loss_scale=None, kind=apex_stand_in.StandIn):
    need(level, BF16)
    amp = apex_stand_in.install(monkeypatch, kind=kind)
    return amp, build_precision(level, "apex", "auto", None, CPU, loss_scale)


@pytest.mark.parametrize("level, kept", [("O1", None), ("O2", True), ("O3", False)])
def test_apex_is_asked_for_the_level_and_nothing_that_it_refuses(monkeypatch, level, kept):
    amp, precision = _apex(monkeypatch, level, 128.0)
    train(precision, steps=1)
    assert amp.initialized == {"opt_level": level, "keep_batchnorm_fp32": kept, "loss_scale": 128.0}
    assert precision.description.endswith("by apex") and precision.label == level


@pytest.mark.parametrize("level", ["O2", "O3"])
@pytest.mark.parametrize("loss_scale", [128.0, None])
def test_apex_and_native_end_with_the_same_numbers(monkeypatch, level, loss_scale):
    _, precision = _apex(monkeypatch, level, loss_scale)
    net, optimizer = train(precision)
    native = Precision(level, BF16, CPU, loss_scale)
    other, plain = train(native)
    for name, value in native.state_dict_of(other).items():
        assert torch.equal(precision.state_dict_of(net)[name], value), name
    keys = ("group", "names", "weight_decay", "momentum", "nesterov", "lr_multiplier")
    assert [[g[key] for key in keys] for g in optimizer.param_groups] == [
        [g[key] for key in keys] for g in plain.param_groups]
    assert precision.scaler.state_dict() == native.scaler.state_dict() or not precision.scaler.dynamic


def test_o1_by_apex_stays_near_o1_by_autocast(monkeypatch):
    native = Precision("O1", BF16, CPU, 128.0)
    need("O1", BF16)
    expected = native.state_dict_of(train(native)[0])
    _, precision = _apex(monkeypatch, "O1", 128.0)
    found = precision.state_dict_of(train(precision)[0])
    assert all(v.dtype == torch.float32 for v in found.values() if v.is_floating_point())
    assert max(float((found[n] - v).abs().max()) for n, v in expected.items() if v.is_floating_point()) < 0.02


def test_the_masters_are_what_is_stepped_saved_and_loaded(monkeypatch):
    amp, precision = _apex(monkeypatch, "O2")
    net = small_net()
    start = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.05)
    precision.attach(net, optimizer)
    assert net[0].weight.dtype == BF16 and net[1].weight.dtype == torch.float32
    assert all(torch.equal(precision.state_dict_of(net)[name], value) for name, value in start.items())  # not rounded
    assert step(precision, net, optimizer, *one_batch())
    saved = {name: value.clone() for name, value in precision.state_dict_of(net).items()}
    assert torch.equal(saved["0.weight"], amp.pairs[0][1]) and saved["0.weight"].dtype == torch.float32
    precision.load_state_dict_into(net, {name: value + 1 for name, value in saved.items()})
    assert torch.equal(amp.pairs[0][1], saved["0.weight"] + 1)
    assert torch.equal(net[0].weight, (saved["0.weight"] + 1).to(BF16))


@pytest.mark.parametrize("level", ["O1", "O2", "O3"])
@pytest.mark.parametrize("loss_scale", ["dynamic", 128.0])
def test_an_overflow_changes_nothing_and_is_counted(monkeypatch, level, loss_scale):
    _, precision = _apex(monkeypatch, level, loss_scale)
    net, optimizer = train(precision, steps=3)
    before = {name: value.clone() for name, value in precision.state_dict_of(net).items()}
    clip, labels = one_batch()
    assert not step(precision, net, optimizer, clip * float("inf"), labels)
    assert all(torch.equal(precision.state_dict_of(net)[name], value) for name, value in before.items())
    assert (precision.scaler.skipped, precision.scaler.scale) == (1, 2.0**15 if loss_scale == "dynamic" else 128.0)
    assert step(precision, net, optimizer, clip, labels)
    assert not torch.equal(precision.state_dict_of(net)["0.weight"], before["0.weight"])


@pytest.mark.parametrize("loss_scale", ["dynamic", 128.0])
def test_micro_batches_add_up_and_one_that_overflows_leaves_out_the_step(monkeypatch, loss_scale):
    _, precision = _apex(monkeypatch, "O2", loss_scale)
    native = Precision("O2", BF16, CPU, loss_scale)
    found = []
    for engine in (precision, native):
        net, optimizer = train(engine, steps=0)
        assert micro_steps(engine, net, optimizer, (1.0, 1.0))
        found.append({name: value.clone() for name, value in engine.state_dict_of(net).items()})
        assert not micro_steps(engine, net, optimizer, (float("inf"), 1.0))
        assert engine.scaler.skipped == 1
        assert all(torch.equal(engine.state_dict_of(net)[name], value) for name, value in found[-1].items())
    assert all(torch.equal(found[0][name], value) for name, value in found[1].items())


def micro_steps(precision, net, optimizer, factors):
    precision.begin()
    for i, factor in enumerate(factors):
        clip, labels = one_batch(i)
        with precision.cast():
            logits = net(clip.to(precision.input_dtype) * factor)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels) / len(factors)
        precision.backward(loss, last=i + 1 == len(factors))
    return precision.step(optimizer)


def test_the_scalers_state_passes_between_the_engines(monkeypatch):
    amp, precision = _apex(monkeypatch, "O2")
    net, optimizer = train(precision, steps=2)
    step(precision, net, optimizer, one_batch()[0] * float("inf"), one_batch()[1])
    step(precision, net, optimizer, *one_batch())
    state = precision.scaler.state_dict()
    assert state == {"dynamic": True, "scale": 2.0**15, "good_steps": 1, "skipped": 1}
    native = LossScaler("dynamic")
    native.load_state_dict(state)
    assert native.state_dict() == state
    precision.scaler.load_state_dict({"dynamic": True, "scale": 2.0**10, "good_steps": 7, "skipped": 3})
    assert amp.state_dict() == {"loss_scaler0": {"loss_scale": 2.0**10, "unskipped": 7}}


@pytest.mark.parametrize("level, device, combined", [("O2", "npu", True), ("O3", "npu", None), ("O2", "cuda", None)])
def test_ascends_patch_combines_gradients_on_the_npu(monkeypatch, level, device, combined):
    amp, _ = _apex(monkeypatch, level, kind=apex_stand_in.AscendStandIn)
    precision = ApexPrecision(level, types.SimpleNamespace(type=device), 128.0, amp)
    train(precision, steps=1)
    assert amp.initialized["combine_grad"] is combined


def test_the_graphs_nodes_stay_fp32_at_o1(monkeypatch):
    amp, precision = _apex(monkeypatch, "O1")
    unit, seen = GloReUnit(4, 2), []
    optimizer = build_sgd(parameter_groups(precision.prepare(unit), 0.0, False), 0.05)
    x = torch.randn(2, 4, 2, 3, 3)
    precision.attach(unit, optimizer)
    unit.gcn.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with precision.cast():
        assert unit.conv_state(x).dtype == BF16
        unit(x).sum().backward()
    assert seen == [torch.float32, torch.float32] and amp.casting
    fresh = GloReUnit(4, 2)
    fresh.gcn.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].dtype))
    fresh(x)
    assert seen[-1] == BF16  # what would be without


def _module(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


@pytest.mark.parametrize(
    "modules, words",
    [({"apex": _module("apex")}, "has no amp: it is another project"),
     ({"apex": _module("apex", __path__=[])}, "has no amp: it is another project"),
     ({"apex": _module("apex", amp=_module("apex.amp")), "apex.amp": _module("apex.amp")}, "is another project")],
)
def test_what_is_not_apex_is_refused_with_a_word(monkeypatch, modules, words):
    monkeypatch.delitem(sys.modules, "apex.amp", raising=False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(OptionError, match="--amp-engine apex: .*%s.*never `pip install apex`" % words):
        load_apex(types.SimpleNamespace(type="cuda"))


def test_where_no_apex_is_installed_the_message_says_how_to_get_it(monkeypatch):
    for name in ("apex", "apex.amp"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with monkeypatch.context() as nowhere:
        nowhere.setattr(sys, "path", [])
        with pytest.raises(OptionError) as refusal:
            load_apex(types.SimpleNamespace(type="cuda"))
    for words in ("no apex is installed", "--amp-engine native", "https://github.com/NVIDIA/apex before May 2025",
                  "https://github.com/Ascend/apex", "never `pip install apex`"):
        assert words in str(refusal.value)


@pytest.mark.parametrize("code", ["import no_such_module_at_all", "print 'Python 2'", "raise KeyError('pyramid')"])
def test_an_apex_that_does_not_load_is_refused_with_its_reason(monkeypatch, tmp_path, code):
    (tmp_path / "apex").mkdir()
    (tmp_path / "apex" / "__init__.py").write_text(code)
    monkeypatch.delitem(sys.modules, "apex", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError, match="does not load .*another project of that name"):
        load_apex(types.SimpleNamespace(type="npu"))


def test_apex_does_not_compute_on_a_cpu():
    with pytest.raises(OptionError, match="--amp-engine apex: apex computes on cuda and npu, not on cpu"):
        load_apex(CPU)
