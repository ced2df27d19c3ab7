"""How the network's arithmetic is executed: here, the precision of the parts that must not run in half.

The seam to torch's autocast, whose spelling differs from version to version. A layer below is the torch layer of
the same name in every respect but one: it computes at its input's precision, whatever precision its weights have.
"""
import contextlib
import functools
from typing import Any, Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HALF_TYPES = (torch.float16, torch.bfloat16)
_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _autocast_switch(device_type: str) -> Optional[Callable[..., Any]]:
    """A maker of autocast contexts for that kind of device; None where torch has no autocast for it."""
    available = getattr(getattr(torch, "amp", None), "is_autocast_available", None)
    if available is not None:
        return functools.partial(torch.autocast, device_type) if available(device_type) else None
    backend = getattr(torch, device_type, None)
    return getattr(getattr(backend, "amp", None), "autocast", None)


def full_precision(tensor: Tensor) -> Any:
    """A context in which autocast is off for the tensor's kind of device; does nothing where there is no autocast."""
    switch = _autocast_switch(tensor.device.type)
    return contextlib.nullcontext() if switch is None else switch(enabled=False)


def promote(x: Tensor) -> Tensor:
    """The tensor in at least single precision: half types become float32, float32 and float64 stay as they are."""
    return x.float() if x.dtype in _HALF_TYPES else x


def _convolve(conv: Any, x: Tensor) -> Tensor:
    """A kernel-1 convolution at x's precision: (N, C_in, ...) -> (N, C_out, ...)."""
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    return _CONVOLVE[conv.weight.dim() - 2](x, conv.weight.to(x.dtype), bias)


def _normalize(norm: Any, x: Tensor) -> Tensor:
    """Batch normalisation at x's precision; running statistics are kept in the precision of their buffers."""
    mean, var = norm.running_mean.to(x.dtype), norm.running_var.to(x.dtype)
    momentum = norm.momentum
    if norm.training:
        norm.num_batches_tracked.add_(1)
        momentum = 1.0 / int(norm.num_batches_tracked) if momentum is None else momentum
    weight, bias = norm.weight.to(x.dtype), norm.bias.to(x.dtype)
    out = F.batch_norm(x, mean, var, weight, bias, norm.training, momentum or 0.0, norm.eps)
    if norm.training:
        with torch.no_grad():
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(var)
    return out


class PointwiseConv1d(nn.Conv1d):
    """Conv1d of kernel 1 at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


class PointwiseConv2d(nn.Conv2d):
    """Conv2d of kernel 1 at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


class PointwiseConv3d(nn.Conv3d):
    """Conv3d of kernel 1 at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self, x)


class PromotedNorm1d(nn.BatchNorm1d):
    """BatchNorm1d at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.weight.dtype == x.dtype else _normalize(self, x)


class PromotedNorm2d(nn.BatchNorm2d):
    """BatchNorm2d at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.weight.dtype == x.dtype else _normalize(self, x)


class PromotedNorm3d(nn.BatchNorm3d):
    """BatchNorm3d at its input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.weight.dtype == x.dtype else _normalize(self, x)
