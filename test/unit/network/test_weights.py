"""Initial values, inflation against the golden files, and every case of what a pretrained file may hold."""
import json
import math
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from network import NETWORKS, build_network
from network.safe_load import UnsafeFileError
from network.weights import WeightsError, WeightsNotFound, initialize, load_pretrained, pretrained_path, state_dict_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import formula  # noqa: E402

INFLATION = json.loads((GOLDEN / "d_inflation.json").read_text())
R50 = "RESNET50_3D_GCN_X5"


@pytest.fixture(scope="module")
def net():
    """One network for the cases that change little of it; each test says what it expects before and after."""
    return build_network(R50, 5)


@pytest.fixture
def weight_file(tmp_path):
    """Saves an object; the file, which may be large, is removed after the test."""
    path = tmp_path / "weights.pth"

    def save(obj):
        torch.save(obj, str(path))
        return path

    yield save
    if path.exists():
        path.unlink()


def det_state(net, prefix):
    return OrderedDict((key, torch.from_numpy(formula.det_tensor(key, value.shape, prefix).copy()).to(value.dtype))
                       if value.dim() else (key, torch.zeros((), dtype=value.dtype))
                       for key, value in net.state_dict().items())


def planar_state(net):
    """A 2-D ImageNet file for the network, by the recipe of golden/README.md."""
    state = OrderedDict()
    for key, value in net.state_dict().items():
        if "_extra" in key:
            continue
        shape = list(value.shape)
        shape = shape[:2] + shape[3:] if len(shape) == 5 else shape
        shape = [1000] + shape[1:] if key.startswith("classifier") else shape
        state[key] = torch.from_numpy(formula.det_tensor(key, shape, "src2d:").copy()).to(value.dtype)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
    state["fc_unused.weight"] = torch.ones(2, 2)
    return state


@pytest.mark.parametrize("name", [R50, "RESNET101_3D_GCN_X5"])
def test_inflation_meets_the_golden_file(name, weight_file):
    golden = INFLATION["2d/" + name]
    net = build_network(name, 101)
    net.load_state_dict(det_state(net, "before:"))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    report = load_pretrained(net, weight_file(planar_state(net)))
    after = net.state_dict()
    for key, expected in golden["state"].items():
        assert formula.fingerprint(key, after[key]) == pytest.approx(expected["fp"], rel=1e-6, abs=1e-9), key
        assert formula.sha(after[key]) == expected["sha256"], key
    assert list(report.initial) == [key for key in after if key in set(golden["unchanged"])]
    assert all(torch.equal(after[key], before[key]) for key in golden["unchanged"])
    assert set(report.skipped) == {"classifier.weight", "classifier.bias", "fc_unused.weight"}
    assert set(report.loaded) == set(after) - set(golden["unchanged"])


def test_a_kinetics_file_keeps_its_trained_units(weight_file):
    source = build_network(R50, 400)
    state = det_state(source, "k400:")
    path = weight_file({"epoch": 0, "state_dict": {"module." + key: value for key, value in state.items()}})
    net = build_network(R50, 101)
    net.load_state_dict(det_state(net, "before:"))
    report = load_pretrained(net, path)
    golden = INFLATION["k400/function"]
    assert report.skipped == dict.fromkeys(("classifier.weight", "classifier.bias"), "for 400 classes, not 101")
    for key, expected in golden["state"].items():
        assert formula.sha(net.state_dict()[key]) == expected["sha256"], key
    built = build_network(R50, 101, pretrained=path).state_dict()
    equal = [key for key in built if built[key].shape == state[key].shape and torch.equal(built[key], state[key])]
    assert len(equal) == golden["equal_to_checkpoint"] == golden["n"] - 2
    for key, length in golden["blocker_weight_l2"].items():
        assert built[key].norm().item() == pytest.approx(length, rel=1e-5), key
    bound = math.sqrt(6 / (2048 + 101))
    assert 0.9 * bound < built["classifier.weight"].abs().max() <= bound


def test_initial_values(net):
    torch.manual_seed(11)
    initialize(net)
    convolutions = 0
    for name, module in net.named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            out, inputs = module.weight.shape[:2]
            area = module.weight[0, 0].numel()
            bound = math.sqrt(6.0 / ((out + inputs) * area))
            weight = module.weight.detach().double()
            spread = 5 / math.sqrt(weight.numel())        # over five standard errors
            assert 0.95 * bound < weight.abs().max() <= bound * (1 + 1e-6), name
            assert abs(weight.mean()) < spread * bound, name
            assert weight.pow(2).mean().item() == pytest.approx(bound ** 2 / 3, rel=spread), name
            assert module.bias is None or (module.bias == 0).all(), name
            convolutions += 1
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert (module.weight == (0 if name.endswith("blocker") else 1)).all() and (module.bias == 0).all(), name
            assert (module.running_var == 1).all() and (module.running_mean == 0).all(), name
            assert module.num_batches_tracked.item() == 0
    assert convolutions == 1 + 16 * 3 + 4 + 5 * 5 + 1


def test_the_seed_decides_the_initial_values():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(build_network("RESNET50_3D", 5).state_dict()["conv4.B03.conv_m2.conv.weight"])
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name, file", [
    (R50, "resnet50-lite_3d_8x8_w-glore_2-3_ep-0000.pth"), ("RESNET50_3D", "resnet50-lite.pth"),
    ("RESNET101_3D_GCN_X5", "resnet101-lite_3d_8x8_w-glore_2-3_ep-0000.pth"), ("RESNET101_3D", "resnet101-lite.pth")])
def test_default_files(name, file):
    assert pretrained_path(name) == Path(sys.modules["network"].__file__).resolve().parent / "pretrained" / file


@pytest.mark.parametrize("wrap", [
    lambda state: state, lambda state: {"state_dict": state}, lambda state: {"model": state, "epoch": 3},
    lambda state: {"state_dict": {"module." + key: value for key, value in state.items()}}])
def test_where_a_file_keeps_its_weights(net, weight_file, wrap):
    value = torch.rand(32)
    report = load_pretrained(net, weight_file(wrap({"conv1.bn.weight": value, "conv1.bn.running_mean": 2 * value})))
    assert report.loaded == ("conv1.bn.weight", "conv1.bn.running_mean")
    assert torch.equal(net.conv1.bn.weight, value) and torch.equal(net.conv1.bn.running_mean, 2 * value)
    assert len(report.initial) == 388 and not report.skipped


def test_the_report_names_what_happened(net, weight_file):
    before = net.classifier.weight.clone()
    report = load_pretrained(net, weight_file({
        "conv1.bn.weight": torch.ones(32), "classifier.weight": torch.ones(400, 2048), "nonsense": torch.ones(1)}))
    assert report.skipped == {"classifier.weight": "for 400 classes, not 5", "nonsense": "not in this network"}
    assert torch.equal(net.classifier.weight, before) and "classifier.weight" in report.initial
    text = report.summary()
    for part in ("1 of 390 tensors loaded", "(for 400 classes, not 5): classifier.weight",
                 "(not in this network): nonsense", "conv3.B01_extra.* (13)", "classifier.bias"):
        assert part in text


def test_graph_units_are_left_out_of_a_baseline(weight_file):
    source = build_network(R50, 5)
    baseline = build_network("RESNET50_3D", 5)
    report = load_pretrained(baseline, weight_file(source.state_dict()))
    assert len(report.skipped) == 65 and all("_extra." in key for key in report.skipped) and not report.initial
    loaded = baseline.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in source.state_dict().items() if key in loaded)


@pytest.mark.parametrize("key, value", [
    ("tail.bn.weight", torch.ones(1024)), ("classifier.weight", torch.ones(5, 1024)),
    ("conv2.B01.conv_m2.conv.weight", torch.ones(64, 64, 5, 5)), ("conv1.bn.weight", torch.ones(32, 1)),
    ("conv1.bn.weight", torch.ones(32, dtype=torch.int64)), ("conv1.bn.weight", [1.0] * 32),
    ("conv2.B01.conv_m1.conv.weight", torch.ones(64, 32, 1, 1, 1))])
def test_any_other_difference_is_an_error_that_changes_nothing(net, weight_file, key, value):
    before = net.conv1.bn.bias.clone()
    path = weight_file({"conv1.bn.bias": torch.full((32,), 9.0), key: value})
    with pytest.raises(WeightsError) as caught:
        load_pretrained(net, path)
    assert key in str(caught.value) and str(path) in str(caught.value)
    assert torch.equal(net.conv1.bn.bias, before)


@pytest.mark.parametrize("obj", [{"a": 1}, [torch.ones(2)], {"state_dict": {}}, {}, 5])
def test_a_file_without_a_state_dict(net, weight_file, obj):
    with pytest.raises(WeightsError, match="holds no state dict"):
        load_pretrained(net, weight_file(obj))


def test_a_file_of_another_network(net, weight_file):
    with pytest.raises(WeightsError, match="none of its 1 names is in this network; the first are layer1.weight"):
        load_pretrained(net, weight_file({"layer1.weight": torch.ones(3)}))


def test_state_dict_of_strips_one_prefix_only():
    assert list(state_dict_of({"module.module.a": torch.ones(1), "b.module.c": torch.ones(1)})) == [
        "module.a", "b.module.c"]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_missing_default_file(name, monkeypatch, tmp_path):
    monkeypatch.setattr("network.weights.PRETRAINED_FOLDER", tmp_path)
    with pytest.raises(WeightsNotFound) as caught:
        build_network(name, 5, pretrained=True)
    get, put = str(caught.value).split("\n")
    assert NETWORKS[name].weights_file in get and "https://" in get
    assert str(tmp_path / NETWORKS[name].weights_file) in put


def test_a_missing_named_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        build_network(R50, 5, pretrained=str(tmp_path / "absent.pth"))
    assert len(str(caught.value).split("\n")) == 2 and "absent.pth" in str(caught.value)
    with pytest.raises(WeightsNotFound):
        build_network(R50, 5, pretrained=str(tmp_path))


def test_an_unreadable_file(net, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_text("not weights")
    with pytest.raises(UnsafeFileError, match="weights.pth cannot be read"):
        load_pretrained(net, path)
