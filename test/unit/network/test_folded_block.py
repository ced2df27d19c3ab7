"""The folded path against PyTorch's own layers: values, gradients, statistics, and when it stands aside."""
import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from features import needs_half
from torch import nn

from network import build_network, execution, folded
from network.flops import count_flops
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


@pytest.mark.parametrize("chunk", [64, 2000, 2 ** 21])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [*PARTS, "glore"])
def test_parts_equal_the_reference_in_float64(kind, training, chunk, monkeypatch):
    monkeypatch.setattr(folded, "_CHUNK_BYTES", chunk)
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


@pytest.mark.parametrize("kind", ["temporal", "all strides", "glore"])
def test_gradients_are_the_derivatives(kind):
    net = folded_copy(part(kind))
    x = torch.randn(2, 8 if kind != "all strides" else 6, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))


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


def clip():
    return torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(0)
    net = random_norms(build_network("RESNET50_3D_GCN_X5", 5)).double()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    net.dropout.p = 0.0
    net.train()
    with torch.no_grad():                                       # so that evaluation, too, sees values of size 1
        net(clip())
    return net


def step(net, training, dtype):
    net.train(training)
    net.zero_grad()
    logits = net(clip().to(dtype))
    F.cross_entropy(logits, torch.tensor([1, 3])).backward()
    return logits.detach(), torch.cat([p.grad.flatten().double() for p in net.parameters()])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_equals_the_reference(training, whole):
    net, twin = copy.deepcopy(whole), folded_copy(whole)
    twin.load_state_dict(net.state_dict())
    net.load_state_dict(twin.state_dict())
    logits, gradients = step(net, training, torch.float64)
    own_logits, own_gradients = step(twin, training, torch.float64)
    assert distance(own_logits, logits) < 1e-10
    assert distance(own_gradients, gradients) < 1e-8
    singles = [step(other, training, torch.float32)
               for other in (copy.deepcopy(whole).float(), folded_copy(whole).float())]
    assert distance(singles[1][0], singles[0][0]) < 1e-4
    with torch.no_grad():
        assert distance(folded_copy(whole).train(training)(clip()), logits) < 1e-10
        assert distance(folded_copy(whole).float().train(training)(clip().float()), logits) < 1e-4
    assert distance(singles[1][1], gradients) < 4 * distance(singles[0][1], gradients)


@pytest.mark.parametrize("height, width", [(9, 12), (12, 9), (2, 3)])
def test_the_stem_evaluates_alike(height, width, monkeypatch):
    stem = random_norms(Stem()).double().eval()
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
    network = build_network("RESNET50_3D_GCN_X5", 3)
    assert execution.set_execution(network, "reference") == "reference"
    for module in network.modules():
        assert getattr(module, "folded", None) is None
        if isinstance(module, nn.Conv3d):
            assert module.weight.is_contiguous() and module.weight.dim() == 5


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
    assert torch.jit.trace(net.eval(), (x,), check_trace=False)(x).shape == x.shape


@needs_half
def test_autocast_and_half_types_run_as_reference():
    nets, x = [part("temporal").float(), folded_copy(part("temporal").float())], torch.randn(2, 8, 3, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nets[0](x), nets[1](x))
    outs = [net.bfloat16()(x.bfloat16()) for net in nets]
    assert torch.equal(*outs)


def test_copies_compute_alike_and_share_no_buffers():
    net, x = folded_copy(part("temporal")).eval(), torch.randn(2, 8, 3, 4, 4, dtype=torch.float64)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert twin.folded is not net.folded and torch.equal(twin(x), net(x))


def test_flops_and_auto():
    net = build_network("RESNET50_3D_GCN_X5", 5)
    count = count_flops(net, (3, 2, 32, 32))
    assert execution.set_execution(net, "auto") == "reference"
    assert execution.set_execution(net, "folded") == "folded"
    assert count_flops(net, (3, 2, 32, 32)) == count
    with pytest.raises(ValueError, match="--execution fast: takes one of auto, reference, folded, compiled"):
        execution.set_execution(net, "fast")
