"""Whole networks in folded execution: as the reference in every use; and what the reference is, frozen."""
import copy
import inspect
import math
import statistics

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from features import needs_half
from test_folded_block import distance, random_norms
from torch import nn
from torch.utils.checkpoint import checkpoint

from network import build_network, execution
from network.flops import count_flops
from network.resnet3d import GloReResNet3d, NetworkSpec, StageSpec
from network.workspace import Workspace
from train import distributed
from train.amp import Precision
from train.optim import build_sgd, parameter_groups

CPU = torch.device("cpu")
NARROW = NetworkSpec("NARROW", (
    StageSpec("conv2", 2, 4, 16, (1, 1, 1), (1,)), StageSpec("conv3", 2, 6, 24, (2, 2, 2), (1,), (1,)),
    StageSpec("conv4", 1, 6, 24, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 32, (1, 2, 2), ())), "", "")
needs_folded = pytest.mark.skipif(not execution.can_execute("folded"), reason="this PyTorch runs as reference")


def clips(seed=2, size=64):
    return torch.randn(2, 3, 4, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(spec=NARROW):
    """In float64, its statistics those of a batch, so that evaluation, too, sees values of size 1."""
    torch.manual_seed(0)
    net = random_norms(build_network(spec, 5) if isinstance(spec, str) else GloReResNet3d(spec, 5)).double()
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    net.dropout.p = 0.0
    with torch.no_grad():
        net.train()(clips())
    for norm in norms:
        norm.momentum = 0.1
    return net


def pair(spec=NARROW):
    """(reference, folded), after load_state_dict in both directions."""
    net = network(spec)
    twin = copy.deepcopy(net)
    assert execution.set_execution(net, "reference") == "reference"
    assert execution.set_execution(twin, "folded") == "folded"
    twin.load_state_dict(net.state_dict())
    net.load_state_dict(twin.state_dict())
    return net, twin


def step(net, clip):
    """Logits and all gradients of one step."""
    net.zero_grad()
    logits = net(clip)
    F.cross_entropy(logits.float() if logits.dtype == torch.bfloat16 else logits, torch.tensor([1, 3])).backward()
    return logits.detach(), torch.cat([p.grad.flatten().double() for p in net.parameters()])


@needs_folded
@pytest.mark.parametrize("spec, training", [(NARROW, True), (NARROW, False), ("RESNET50_3D_GCN_X5", True)])
def test_logits_and_gradients(spec, training):
    net, twin = (each.train(training) for each in pair(spec))
    expected, found = step(net, clips()), step(twin, clips())
    assert distance(found[0], expected[0]) < 1e-10
    assert distance(found[1], expected[1]) < 1e-8
    for (name, value), (_, other) in zip(twin.named_buffers(), net.named_buffers()):
        assert distance(value, other) < 1e-10, name
    with torch.no_grad():
        assert distance(twin(clips()), net(clips())) < 1e-10
        assert distance(twin.float()(clips().float()), net.float()(clips().float())) < 1e-4


WIDE = NetworkSpec("WIDE", (
    StageSpec("conv2", 1, 4, 16, (1, 1, 1), (1,)), StageSpec("conv3", 2, 128, 24, (2, 2, 2), (1,), (1,)),
    StageSpec("conv4", 1, 6, 24, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 32, (1, 2, 2), ())), "", "")


@needs_folded
@pytest.mark.parametrize("count, size", [(1, 32), (3, 32), (2, 96)])
def test_nothing_is_read_before_it_is_written(count, size, monkeypatch):
    """Memory that comes uninitialised is given as NaN: a step and an evaluation are what they are without that."""
    empty, results = Workspace.empty, []
    net = network(WIDE).float()
    assert execution.set_execution(net, "folded") == "folded"
    for spoilt in (False, True):
        twin, clip = copy.deepcopy(net), clips(size=size).float()[:1].repeat(count, 1, 1, 1, 1)
        if spoilt:
            monkeypatch.setattr(Workspace, "empty", lambda *args: empty(*args).fill_(math.nan))
            monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *shape: self.new_full(shape, math.nan))
        twin.train()(clip).sum().backward()
        with torch.no_grad():
            results.append([p.grad for p in twin.parameters()] + [twin.eval()(clip)])
    assert all(torch.equal(*both) and torch.isfinite(both[0]).all() for both in zip(*results))


@needs_folded
def test_gradients_in_fp32_are_as_near_to_float64s_as_the_references():
    """A ReLU that falls the other way moves a gradient by 1e-3, in either execution: so the middle of several draws."""
    exact, ratios = network().train(), []
    singles = [each.float().train() for each in pair()]
    for seed in range(5):
        gradients = step(exact, clips(seed))[1]
        own, folded = (distance(step(net, clips(seed).float())[1], gradients) for net in singles)
        ratios.append(folded / own)
    assert statistics.median(ratios) < 4


@needs_half
@needs_folded
@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
def test_half_types_run_as_reference(level, monkeypatch):
    nets = [net.float().train() for net in pair()]
    results = []
    for net in nets:
        precision = Precision(level, torch.float32 if level == "O0" else torch.bfloat16, CPU)
        precision.prepare(net)
        precision.begin()
        with precision.cast():
            results.append(step(net, clips().to(precision.input_dtype)))
    if level == "O0":
        assert distance(results[1][0], results[0][0]) < 1e-4
        monkeypatch.setattr("network.resnet3d.bottleneck", None)
        with pytest.raises(TypeError):
            nets[1](clips().float())                            # it was folded
    else:
        assert all(torch.equal(*both) for both in zip(*results))
    assert execution.set_execution(nets[1], "folded", half=level != "O0") == "folded" if level == "O0" else "reference"


@needs_folded
def test_a_recorded_network_is_torchs_own_layers(tmp_path):
    net, twin = (each.float().eval() for each in pair())
    clip = clips(size=32).float()
    with torch.no_grad():
        expected = net(clip)
        assert torch.equal(torch.jit.trace(twin, (clip,), check_trace=False)(clip), expected)
        if hasattr(torch, "export"):
            program = torch.export.export(twin, (clip,))
            names = {str(node.target) for node in program.graph.nodes}
            assert "aten.conv3d.default" in names and not any("mm" in name and "bmm" not in name for name in names)
            assert torch.equal(program.module()(clip), expected)


@needs_folded
@pytest.mark.filterwarnings("ignore")
def test_onnx_holds_torchs_own_layers(tmp_path):
    onnx = pytest.importorskip("onnx")
    net, twin = (each.float().eval() for each in pair())
    by_trace = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    graphs = []
    for number, each in enumerate((net, twin)):
        path = str(tmp_path / ("%d.onnx" % number))
        torch.onnx.export(each, (clips(size=32).float(),), path, opset_version=11, **by_trace)
        graphs.append([node.op_type for node in onnx.load(path).graph.node])
    assert graphs[0] == graphs[1] and graphs[0].count("Conv") == 28


@needs_folded
def test_recomputed_blocks():
    net, twin = pair()
    plain = step(twin, clips())
    twin.load_state_dict(net.state_dict())
    for stage in (twin.conv2, twin.conv3, twin.conv4, twin.conv5):
        for part in stage:
            part.forward = lambda x, forward=part.forward: checkpoint(forward, x, use_reentrant=False)
    assert all(torch.equal(*both) for both in zip(step(twin, clips()), plain))


def _process(rank, path):
    torch.set_num_threads(1)
    distributed.start(distributed.Ranks(rank, rank, 2), "gloo", "file://%s/meet" % path)
    expected, found = (step(distributed.wrap(net.train(), CPU), clips(rank)) for net in pair())
    assert distance(found[0], expected[0]) < 1e-10 and distance(found[1], expected[1]) < 1e-8
    alone = step(network().train(), clips(rank))[1]
    assert distance(expected[1], alone) > 1e-3                  # the other process's clips count
    distributed.stop()


@needs_folded
def test_two_processes(tmp_path):
    mp.spawn(_process, args=(str(tmp_path),), nprocs=2)


def test_auto_and_counts():
    net = build_network("RESNET50_3D_GCN_X5", 5)
    count = count_flops(net, (3, 2, 32, 32))
    runs = "folded" if execution.can_execute("folded") else "reference"
    assert execution.set_execution(net, "auto") == runs
    assert count_flops(net, (3, 2, 32, 32)) == count
    assert execution.set_execution(net, "auto", half=True) == "reference"
    with pytest.raises(ValueError, match="--execution fast: takes one of auto, reference, folded, compiled"):
        execution.set_execution(net, "fast")


@needs_folded
def test_auto_leaves_small_layers_to_the_reference_where_threads_share_them(monkeypatch):
    nets = [network().float() for _ in range(2)]
    assert [execution.set_execution(net, name) for net, name in zip(nets, ("auto", "folded"))] == ["folded"] * 2
    block, x = [net.conv2.B02 for net in nets], torch.randn(2, 16, 4, 8, 8)
    for threads, folds in ((1, [True, True]), (2, [False, True])):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert [execution.can_fold(part, x) for part in block] == folds
    large = torch.randn(1, 1).expand(2, 16).reshape(2, 16, 1, 1, 1).expand(2, 16, 8, 56, 56).contiguous()
    assert execution.can_fold(block[0], large) and execution.can_fold(copy.deepcopy(block[0]), large)


# One training step of the reference, in PyTorch's own operations: none copies, converts or asks the device for a value.
LAYERS = {"convolution", "native_batch_norm", "relu_", "max_pool3d_with_indices", "add.Tensor", "mean.dim", "addmm",
          "_log_softmax", "nll_loss_forward", "convolution_backward", "native_batch_norm_backward",
          "threshold_backward", "max_pool3d_with_indices_backward", "mm", "sum.dim_IntList", "div.Scalar",
          "_log_softmax_backward_data", "nll_loss_backward", "add_.Tensor", "ones_like"}
VIEWS = {"t", "view", "detach", "expand", "unsqueeze", "_unsafe_view", "empty.memory_format"}
UPDATES = {"add.Tensor", "add_.Tensor", "mul_.Tensor", "clone", "detach"}   # clone: momentum's buffers, the first time


def test_the_reference_is_frozen():
    dispatch = pytest.importorskip("torch.utils._python_dispatch")

    class Recorded(dispatch.TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.add(function.name().split("::")[1])
            return function(*args, **(kwargs or {}))

    net = GloReResNet3d(NARROW._replace(stages=tuple(s._replace(glore_after=()) for s in NARROW.stages)), 5).train()
    net.dropout.p = 0.0
    assert execution.set_execution(net, "reference") == "reference"
    for module in net.modules():
        assert getattr(module, "folded", None) is None
        if isinstance(module, nn.Conv3d):
            assert type(module) is nn.Conv3d and module.weight.is_contiguous() and module.weight.dim() == 5
    optimizer = build_sgd(parameter_groups(net.named_parameters(), 1e-4, False), 0.1, plain=True)
    assert type(optimizer) is torch.optim.SGD and optimizer.defaults.get("foreach") is False
    assert not optimizer.defaults.get("fused")
    clip, label = clips().float(), torch.tensor([1, 3])
    with Recorded() as seen:
        F.cross_entropy(net(clip), label).backward()
    assert LAYERS >= seen.names - VIEWS and {"convolution", "native_batch_norm", "convolution_backward"} <= seen.names
    with Recorded() as seen:
        optimizer.step()
    assert {name for name in seen.names if not name.startswith("_record_function")} <= UPDATES
