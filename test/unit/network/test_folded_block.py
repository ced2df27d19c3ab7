"""The folded path against PyTorch's own layers: values, gradients, statistics, and when it stands aside."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from network import execution, folded
from network.glore import GloReUnit
from network.resnet3d import Bottleneck3d, StageSpec, Stem
from train.precise_bn import reestimate_statistics

pytestmark = pytest.mark.skipif(not execution.can_execute("folded"), reason="this PyTorch runs as reference")
PARTS = {"plain": (8, (1, 1, 1), False, False), "temporal": (8, (1, 1, 1), True, False),
         "first": (6, (1, 1, 1), True, True), "all strides": (6, (2, 2, 2), True, True),
         "plane": (6, (1, 2, 2), False, True)}


def random_norms(net):
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return net


def part(kind):
    torch.manual_seed(0)
    if kind == "glore":
        return random_norms(GloReUnit(8, 3)).double()
    num_in, stride, temporal, first = PARTS[kind]
    return random_norms(Bottleneck3d(num_in, StageSpec("s", 1, 4, 8, stride, ()), temporal, first)).double()


def folded_copy(net):
    twin = copy.deepcopy(net)
    assert execution.set_execution(twin, "folded") == "folded"
    return twin


def results(net, x, training, weigh):
    """Output, gradients by name (the input's as `x`) and buffers after one pass."""
    net.train(training)
    x = x.clone().requires_grad_()
    out = net(x)
    (weigh(out.shape).to(out.dtype) * out).sum().backward()
    values = {name: p.grad for name, p in net.named_parameters()}
    return out.detach(), dict(values, x=x.grad), dict(net.named_buffers())


def weights_of(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def distance(value, expected):
    return ((value.double() - expected.double()).norm() / expected.double().norm().clamp(min=1e-12)).item()


@pytest.mark.parametrize("chunk, few", [(64, 0), (2000, 10 ** 6), (2 ** 21, 10 ** 6)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [*PARTS, "glore"])
def test_parts_equal_the_reference_in_float64(kind, training, chunk, few, monkeypatch):
    monkeypatch.setattr(folded, "_CHUNK_BYTES", chunk)
    monkeypatch.setattr(folded, "_FEW_POSITIONS", few)
    net = part(kind)
    x = 3 + 2 * torch.randn(2, 8 if kind in ("plain", "temporal", "glore") else 6, 5, 7, 9, dtype=torch.float64)
    expected, found = results(net, x, training, weights_of), results(folded_copy(part(kind)), x, training, weights_of)
    assert distance(found[0], expected[0]) < 1e-12
    with torch.no_grad():
        twin = folded_copy(part(kind)).train(training)
        assert distance(twin(x), expected[0]) < 1e-12
    for name, gradient in expected[1].items():
        assert distance(found[1][name], gradient) < 1e-10, name
    for name, value in expected[2].items():
        assert distance(found[2][name], value) < 1e-12, name


def test_clips_lie_side_by_side_where_they_are_small():
    x = torch.randn(3, 4, 2, 5, 7)
    assert folded.clips_together(x) == 3 and folded.clips_together(torch.empty(3, 1, 8, 56, 56)) == 1
    sheet = folded.beside(x, 3)
    assert sheet.shape == (1, 4, 2, 3, 5, 7) and torch.equal(sheet[0, :, 1, 2], x[2, :, 1])
    one_by_one = folded.apart(sheet)
    assert torch.equal(one_by_one, x) and folded.lies_well(one_by_one) and not one_by_one.is_contiguous()
    assert folded.beside(one_by_one, 3).data_ptr() == sheet.data_ptr()          # nothing is copied between blocks


@pytest.mark.parametrize("kind", ["temporal", "all strides", "glore"])
def test_gradients_are_the_derivatives(kind):
    net = folded_copy(part(kind))
    x = torch.randn(2, 8 if kind != "all strides" else 6, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,), fast_mode=True)


def test_one_frame_is_enough_for_a_temporal_block():
    x = torch.randn(2, 8, 1, 4, 4, dtype=torch.float64)
    expected, found = (results(net, x, True, weights_of) for net in (part("temporal"), folded_copy(part("temporal"))))
    assert distance(found[0], expected[0]) < 1e-12 and distance(found[1]["x"], expected[1]["x"]) < 1e-10


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_over_three_passes(momentum):
    nets = [part("first"), folded_copy(part("first"))]
    for net in nets:
        for layer in net.modules():
            if isinstance(layer, nn.BatchNorm3d):
                layer.momentum = momentum
        torch.manual_seed(1)
        for _ in range(3):
            net(torch.randn(2, 6, 4, 5, 5, dtype=torch.float64))
    for (name, value), (_, expected) in zip(nets[1].named_buffers(), nets[0].named_buffers()):
        assert distance(value, expected) < 1e-12, name


def test_backward_twice_and_frozen_parts():
    net, x = folded_copy(part("temporal")), torch.randn(2, 8, 4, 5, 5, dtype=torch.float64, requires_grad=True)
    out = net(x).square().sum()
    out.backward(retain_graph=True)
    once = x.grad.clone()
    out.backward()
    assert torch.equal(x.grad, 2 * once)
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    assert not net(x.detach()).requires_grad


@pytest.mark.parametrize("height, width", [(9, 12), (12, 9), (2, 3)])
def test_the_stem_evaluates_alike(height, width, monkeypatch):
    stem = random_norms(Stem(3)).double().eval()
    twin, x = folded_copy(stem), torch.randn(2, 3, 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        assert distance(twin(x), stem(x)) < 1e-12
    monkeypatch.setattr("network.resnet3d.stem", None)
    assert torch.equal(twin(x), stem(x)) and torch.equal(twin.train()(x), stem.train()(x))


def test_precise_bn_finds_the_same_statistics():
    nets = [part("first"), folded_copy(part("first"))]
    for net in nets:
        torch.manual_seed(1)
        clips = [torch.randn(2, 6, 4, 5, 5, dtype=torch.float64) for _ in range(3)]
        reestimate_statistics(net, [lambda clip=clip, net=net: net(clip) for clip in clips])
    for (name, value), (_, expected) in zip(nets[1].named_buffers(), nets[0].named_buffers()):
        assert distance(value, expected) < 1e-6, name


def test_reference_is_torchs_own_layers():
    block, unit = part("all strides").train(), part("glore").train()
    assert block.folded is None and unit.folded is None
    twin, x = copy.deepcopy(block), torch.randn(2, 6, 4, 6, 6, dtype=torch.float64)

    def layer(name, value):
        bn, conv = getattr(twin, name).bn, getattr(twin, name).conv
        value = F.relu(F.batch_norm(value, bn.running_mean, bn.running_var, bn.weight, bn.bias, True, 0.1, bn.eps))
        return F.conv3d(value, conv.weight, None, conv.stride, conv.padding)

    expected = layer("conv_m3", layer("conv_m2", layer("conv_m1", x))) + layer("conv_w1", x)
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("kind", ["temporal", "glore"])
def test_it_stands_aside(kind, monkeypatch):
    net, x = folded_copy(part(kind).float()), torch.randn(2, 8, 3, 4, 4)
    expected = part(kind).float().train()(x)

    def forbidden(*_):
        raise AssertionError("folded")

    for place in ("network.resnet3d.bottleneck", "network.glore.glore_unit"):
        monkeypatch.setattr(place, forbidden)
    with pytest.raises(AssertionError, match="folded"):
        net(x)
    strided = x.transpose(3, 4).contiguous().transpose(3, 4)
    assert torch.equal(net(strided), part(kind).float().train()(strided))
    hook = (net.conv_m1.conv if kind == "temporal" else net.conv_proj).register_forward_hook(lambda *_: None)
    assert torch.equal(net(x), expected)
    hook.remove()


def test_copies_compute_alike_and_share_no_buffers():
    net, x = folded_copy(part("temporal")).eval(), torch.randn(2, 8, 3, 4, 4, dtype=torch.float64)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.folded is not net.folded and torch.equal(twin(x), net(x))
