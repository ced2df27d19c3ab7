"""Activation checkpointing: the same function to the bit, statistics that move once, and less that is kept."""
import copy
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from network.execution import can_execute, set_execution
from network.recomputation import recomputed, set_recomputation
from network.resnet3d import GloReResNet3d, NetworkSpec, StageSpec
from network.weights import initialize

STAGES = (StageSpec("conv2", 2, 4, 8, (1, 1, 1), (1,)), StageSpec("conv3", 1, 8, 16, (2, 2, 2), (), (1,)),
          StageSpec("conv4", 1, 8, 16, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 16, (1, 2, 2), ()))
EXECUTIONS = [name for name in ("reference", "folded") if can_execute(name)]


def _network():
    torch.manual_seed(0)
    net = GloReResNet3d(NetworkSpec("TINY", STAGES, "none.pth", "nothing"), 3)
    initialize(net)
    for name, parameter in net.named_parameters():
        if "blocker" in name:
            nn.init.ones_(parameter)
    net.dropout.p = 0.0
    return net.train()


def _three_steps(execution, recompute):
    """Logits of three steps of plain gradient descent, the last gradients, and the state."""
    net, logits = _network(), []
    set_execution(net, execution)
    set_recomputation(net, recompute)
    torch.manual_seed(1)
    for clip in torch.randn(3, 2, 3, 4, 32, 32):
        net.zero_grad()
        out = net(clip)
        out.pow(2).sum().backward()
        logits.append(out.detach())
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.01 * parameter.grad)
    gradients = {name: p.grad for name, p in net.named_parameters()}
    return torch.stack(logits), gradients, net.state_dict()


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_logits_gradients_and_statistics_are_the_same_to_the_bit(execution):
    (logits, gradients, state), (again, its_gradients, its_state) = (
        _three_steps(execution, recompute) for recompute in (False, True))
    assert torch.equal(logits, again)
    assert gradients.keys() == its_gradients.keys() and state.keys() == its_state.keys()
    for one, other in ((gradients, its_gradients), (state, its_state)):
        assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []
    assert int(its_state["conv3.B01_extra.blocker.num_batches_tracked"]) == 3
    assert gradients["conv3.B01_extra.conv_proj.weight"].abs().sum() > 0


class _Watched(nn.Module):
    """Multiplies by tensors that the backward pass wants, and knows which of them are still there."""

    def __init__(self):
        super().__init__()
        self.calls, self.norm, self.alive = 0, nn.BatchNorm3d(2), []

    def forward(self, x):
        self.calls += 1
        x = self.norm(x)
        for _ in range(4):
            factor = np.full(tuple(x.shape), 2, np.float32)
            self.alive.append(weakref.ref(factor))
            x = x * torch.from_numpy(factor)
        return x


@pytest.mark.parametrize("recompute", [False, True])
def test_what_lies_inside_is_not_kept(recompute):
    part, x = _Watched(), torch.randn(2, 2, 1, 3, 3, requires_grad=True)
    out = recomputed(part, x) if recompute else part(x)
    assert part.calls == 1 and [ref() is not None for ref in part.alive] == [not recompute] * 4
    out.sum().backward()
    assert part.calls == (2 if recompute else 1) and int(part.norm.num_batches_tracked) == 1


def test_without_gradients_nothing_is_computed_twice_and_names_are_the_same():
    net, plain = _network(), _network()
    set_recomputation(net, True)
    assert list(net.state_dict()) == list(plain.state_dict())
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.no_grad():
        assert torch.equal(net.eval()(clip), plain.eval()(clip))
    assert copy.deepcopy(net).conv2.recompute
    set_recomputation(net, False)
    assert not net.conv2.recompute
