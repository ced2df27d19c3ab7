"""The precision seam: what is promoted, what is left alone, and that the layers are otherwise torch's own."""
import pytest
import torch
from features import needs_half
from torch import nn

from network import execution
from train.config import EXECUTIONS


@pytest.mark.parametrize("dtype, promoted", [
    (torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float32, torch.float32),
    (torch.float64, torch.float64)])
def test_promote(dtype, promoted):
    x = torch.ones(2, dtype=dtype)
    assert execution.promote(x).dtype == promoted
    assert (execution.promote(x) is x) == (dtype == promoted)


@needs_half
def test_full_precision_switches_autocast_off_and_on_again():
    x = torch.ones(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with execution.full_precision(x):
            assert torch.matmul(x, x).dtype == torch.float32
        assert torch.matmul(x, x).dtype == torch.bfloat16


def test_full_precision_without_autocast_does_nothing(monkeypatch):
    monkeypatch.setattr(execution, "_autocast_switch", lambda kind: None)
    with execution.full_precision(torch.ones(1)):
        assert torch.matmul(torch.ones(2, 2), torch.ones(2, 2)).tolist() == [[2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("own, torchs, dimension", [
    (execution.PointwiseConv1d, nn.Conv1d, 1), (execution.PointwiseConv2d, nn.Conv2d, 2),
    (execution.PointwiseConv3d, nn.Conv3d, 3)])
@pytest.mark.parametrize("bias", [False, True])
def test_pointwise_convolution_is_torchs(own, torchs, dimension, bias):
    layer, plain = own(6, 4, 1, bias=bias), torchs(6, 4, 1, bias=bias)
    layer.load_state_dict(plain.state_dict())
    x = torch.randn((2, 6, 5, 4, 3)[:2 + dimension])
    assert torch.equal(layer(x), plain(x))
    plain.bfloat16().float()
    assert torch.equal(layer.bfloat16()(x), plain(x))


@pytest.mark.parametrize("own, torchs, dimension", [
    (execution.PromotedNorm1d, nn.BatchNorm1d, 1), (execution.PromotedNorm2d, nn.BatchNorm2d, 2),
    (execution.PromotedNorm3d, nn.BatchNorm3d, 3)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_promoted_norm_is_torchs_with_rounded_buffers(own, torchs, dimension, momentum):
    layer, plain = own(6, momentum=momentum).bfloat16(), torchs(6, momentum=momentum)
    for _ in range(3):
        x = 1 + 2 * torch.randn((8, 6, 5, 4, 3)[:2 + dimension])
        assert (layer(x) - plain(x)).abs().max() < 1e-5
    assert layer.num_batches_tracked.item() == plain.num_batches_tracked.item() == 3
    assert (layer.running_mean.float() - plain.running_mean).abs().max() < 0.02
    assert (layer.running_var.float() - plain.running_var).abs().max() < 0.05
    frozen = {key: value.clone() for key, value in layer.state_dict().items()}
    plain.load_state_dict(frozen)
    assert (layer.eval()(x) - plain.eval()(x)).abs().max() < 1e-5
    assert all(torch.equal(value, frozen[key]) for key, value in layer.state_dict().items())


def test_an_execution_that_this_pytorch_lacks(monkeypatch):
    monkeypatch.setattr(execution, "can_execute", lambda name: name == "reference")
    assert execution.set_execution(nn.Linear(2, 2), "auto") == "reference"
    with pytest.raises(ValueError, match="--execution folded: this PyTorch"):
        execution.set_execution(nn.Linear(2, 2), "folded")


def test_the_options_choices_are_the_seams():
    assert EXECUTIONS == execution.EXECUTIONS
