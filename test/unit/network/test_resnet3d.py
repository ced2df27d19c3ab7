"""The networks against the golden files: names, shapes, order, logits, gradients, buffers; and the sizes they take."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from network import NETWORKS, build_network
from network.resnet3d import check_clip_size, last_positions

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import formula  # noqa: E402

STATE = json.loads((GOLDEN / "a_state_dict.json").read_text())
NUMBERS = json.loads((GOLDEN / "b_logits_grads.json").read_text())
LABELS = [3, 77]
GCN_NETWORKS = ["RESNET50_3D_GCN_X5", "RESNET101_3D_GCN_X5"]


def golden_network(name, dtype):
    net = formula.load_det(build_network(name, 101), dtype)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def golden_clip(batch, dtype):
    return torch.from_numpy(formula.det_input((batch, 3, 8, 224, 224))).to(dtype)


def golden_logits(name, precision, mode):
    with np.load(str(GOLDEN / "b_logits.npz")) as arrays:
        return torch.from_numpy(arrays["%s_%s_%s_logits" % (name, precision, mode)])


def distance(out, expected):
    """Largest difference relative to the largest value."""
    return ((out.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


@pytest.mark.parametrize("classes", [101, 400])
@pytest.mark.parametrize("name", GCN_NETWORKS)
def test_state_dict_is_that_of_the_public_checkpoints(name, classes):
    net = build_network(name, classes)
    golden = STATE["%s/%d" % (name, classes)]
    state = [[key, list(value.shape), str(value.dtype)] for key, value in net.state_dict().items()]
    expected = json.loads(json.dumps(STATE[name + "/101"]["state"]).replace("[101", "[%d" % classes))
    assert state == expected
    assert [key for key, _ in net.named_parameters()] == STATE[name + "/101"]["parameter_order"]
    parameters = dict(net.named_parameters())
    assert sum(value.numel() for value in parameters.values()) == golden["params"]
    assert sum(value.numel() for key, value in parameters.items() if "_extra" in key) == golden["params_glore"]
    assert sum(value.numel() for value in net.buffers()) == golden["buffers"]


@pytest.mark.parametrize("depth", ["50", "101"])
def test_baselines_are_the_gcn_networks_without_their_units(depth):
    golden = STATE["RESNET%s_3D_GCN_X5/101" % depth]["state"]
    state = build_network("RESNET%s_3D" % depth, 101).state_dict()
    expected = [(key, shape) for key, shape, _ in golden if "_extra" not in key]
    assert [(key, list(value.shape)) for key, value in state.items()] == expected


@pytest.fixture(scope="module")
def resnet50():
    """Eval, then train, on one float64 network: mode -> (logits, loss, gradients); buffers after both."""
    net = golden_network("RESNET50_3D_GCN_X5", torch.float64)
    clip, results = golden_clip(2, torch.float64), {}
    for mode in ("eval", "train"):
        net.train(mode == "train")
        net.zero_grad()
        logits = net(clip)
        loss = F.cross_entropy(logits, torch.tensor(LABELS))
        loss.backward()
        gradients = {key: value.grad.numpy().copy() for key, value in net.named_parameters()}
        results[mode] = (logits.detach(), loss.item(), gradients)
    results["buffers"] = {key: value.numpy().copy() for key, value in net.named_buffers()}
    return results


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_logits_in_float64(resnet50, mode):
    logits, loss, _ = resnet50[mode]
    golden = NUMBERS["RESNET50_3D_GCN_X5/f64"][mode]
    assert distance(logits, golden_logits("RESNET50_3D_GCN_X5", "f64", mode)) < 1e-9
    assert loss == pytest.approx(golden["loss"], rel=1e-9)
    assert formula.fingerprint("logits", logits) == pytest.approx(golden["logits_fingerprint"], rel=1e-8)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_gradients_in_float64(resnet50, mode):
    gradients = resnet50[mode][2]
    golden = NUMBERS["RESNET50_3D_GCN_X5/f64"][mode]
    assert set(gradients) == set(golden["grad_l2"])
    compared = 0
    for key, length in golden["grad_l2"].items():
        if length < 1e-9:
            continue
        _, own_length, own_dot = formula.fingerprint("grad." + key, gradients[key])
        assert own_length == pytest.approx(length, rel=1e-6), key
        assert abs(own_dot - golden["grad_dot"][key]) < 1e-6 * length, key
        compared += 1
    assert compared >= 205


def test_buffers_after_one_training_step(resnet50):
    golden = NUMBERS["RESNET50_3D_GCN_X5/f64"]["train"]["buffers_after"]
    assert set(golden) == set(resnet50["buffers"])
    for key, expected in golden.items():
        assert formula.fingerprint("buf." + key, resnet50["buffers"][key]) == pytest.approx(expected, rel=1e-8), key


def test_logits_of_the_deeper_network_in_float64():
    net = golden_network("RESNET101_3D_GCN_X5", torch.float64).eval()
    with torch.no_grad():
        logits = net(golden_clip(1, torch.float64))
    assert distance(logits, golden_logits("RESNET101_3D_GCN_X5", "f64", "eval")) < 1e-9


def test_logits_in_float32_to_the_reference_s_own_distance():
    net = golden_network("RESNET50_3D_GCN_X5", torch.float32).eval()
    with torch.no_grad():
        logits = net(golden_clip(2, torch.float32))
    error = (logits.double() - golden_logits("RESNET50_3D_GCN_X5", "f64", "eval")).abs().max().item()
    assert error < 10 * NUMBERS["fp32_vs_fp64/eval"]["logits_max_abs"]


def test_stages_have_the_sizes_of_the_table():
    net, sizes = build_network("RESNET50_3D_GCN_X5", 7).eval(), {}
    for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "globalpool"):
        module = getattr(net, name)
        module.register_forward_hook(lambda _, inputs, out, name=name: sizes.update({name: tuple(out.shape)}))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 8, 64, 96)).shape == (1, 7)
    assert sizes == {"conv1": (1, 32, 8, 16, 24), "conv2": (1, 256, 8, 16, 24), "conv3": (1, 512, 4, 8, 12),
                     "conv4": (1, 1024, 4, 4, 6), "conv5": (1, 2048, 4, 2, 3), "globalpool": (1, 2048)}


@pytest.mark.parametrize("frames, height, width", [(2, 32, 32), (5, 33, 47), (16, 64, 32)])
def test_any_size_that_survives_the_strides(frames, height, width):
    net = build_network("RESNET50_3D", 5).eval()
    check_clip_size(frames, height, width)
    with torch.no_grad():
        assert torch.isfinite(net(torch.randn(1, 3, frames, height, width))).all()


@pytest.mark.parametrize("size, named, unnamed", [
    ((1, 32, 32), ["clip length 1", "at least 2"], ["height", "width"]),
    ((8, 31, 224), ["clip height 31", "at least 32"], ["clip length", "width"]),
    ((8, 224, 16), ["clip width 16"], ["clip length", "height"]),
    ((1, 8, 9), ["clip length 1", "clip height 8", "clip width 9"], []),
])
def test_a_size_that_does_not_is_named(size, named, unnamed):
    with pytest.raises(ValueError) as caught:
        build_network("RESNET50_3D", 5).eval()(torch.zeros((1, 3) + size))
    message = str(caught.value).split(";")[0]
    assert all(part in message for part in named) and not any(part in message for part in unnamed)


@pytest.mark.parametrize("shape", [(3, 8, 32, 32), (1, 8, 3, 32, 32), (1, 1, 8, 32, 32)])
def test_a_clip_of_another_layout_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(N, 3, T, H, W\)"):
        build_network("RESNET50_3D", 5)(torch.zeros(shape))


def test_dropout_acts_in_training_only():
    net = build_network("RESNET50_3D", 5)
    assert [module.p for module in net.modules() if isinstance(module, nn.Dropout)] == [0.5]
    net.classifier = nn.Identity()
    clip = torch.randn(2, 3, 2, 32, 32)
    with torch.no_grad():
        zeros_in_training = (net.train()(clip) == 0).float().mean().item()
        net.eval()
        assert torch.equal(net(clip), net(clip))
    assert zeros_in_training > 0.4


def test_names_in_any_case_and_an_unknown_one():
    assert list(NETWORKS) == ["RESNET50_3D_GCN_X5", "RESNET101_3D_GCN_X5", "RESNET50_3D", "RESNET101_3D"]
    net = build_network("Resnet50_3d_Gcn_x5", 3)
    assert (net.name, net.num_classes) == ("RESNET50_3D_GCN_X5", 3)
    with pytest.raises(ValueError) as caught:
        build_network("RESNET50_3D_GNC_X5", 3)
    assert all(name in str(caught.value) for name in NETWORKS)
    assert "did you mean RESNET50_3D_GCN_X5" in str(caught.value)
    with pytest.raises(ValueError, match="num_classes"):
        build_network("RESNET50_3D", 0)


@pytest.mark.parametrize("size", [(3, 65, 96), (2, 32, 33)])
def test_the_positions_of_the_last_stage_are_counted(size):
    seen = []
    net = build_network("RESNET50_3D", 2).eval()
    net.tail.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[2:].numel()))
    with torch.no_grad():
        net(torch.zeros((1, 3) + size))
    assert seen == [last_positions(*size)]


def test_the_full_size_leaves_four_by_seven_by_seven():
    assert last_positions(8, 224, 224) == 4 * 7 * 7
