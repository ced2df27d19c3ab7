"""How the network's arithmetic is executed: the choice of execution, and the precision of what must not run in half.

The seam to torch's autocast and compiler, whose spelling differs from version to version. A layer below is the torch
layer of the same name in every respect but one: it computes at its input's precision, whatever its weights have.
"""
import contextlib
import functools
from typing import Any, Callable, Dict, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from network.folded import lies_well
from network.workspace import Workspace

EXECUTIONS = ("auto", "reference", "folded", "compiled")
# What `auto` is on a kind of device, where another execution than reference was measured to be faster there at every
# size of clip (benchmarks/step.md). How a layer lies follows from the clip's size, in network/folded.py.
AUTO: Dict[str, str] = {"cpu": "folded"}
AUTO_LEAST_VALUES = 400000      # of a layer's input, where threads share it: with fewer they wait for busy cores
GRAPH_DEVICES = ("cuda",)       # where PyTorch can record what `compiled` runs, for --cuda-graphs
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


def _autocast_on(kind: str) -> bool:
    """Whether autocast is switched on for that kind of device, in whatever way this PyTorch answers that."""
    if hasattr(torch, "get_autocast_dtype"):                # as old as is_autocast_enabled's argument
        return bool(torch.is_autocast_enabled(kind))
    ask: Any = getattr(torch, "is_autocast_cpu_enabled", getattr(torch, "is_autocast_enabled", None))
    return ask is not None and bool(ask())


def _is_recorded() -> bool:
    """Whether the forward pass is being traced, scripted, compiled or exported: then it must be torch's own layers."""
    compiling = getattr(getattr(torch, "compiler", None), "is_compiling", None)
    return torch._C._get_tracing_state() is not None or (compiling is not None and compiling())


def can_fold(part: nn.Module, x: Any) -> bool:
    """Whether a block or graph unit may compute x in the folded way; what it cannot do, torch's layers do instead.

    It is written for plain tensors in one full precision, for torch's own BatchNorm with statistics, and calls none of
    the part's layers: where somebody hooked one of them, it has to be called.
    """
    if type(x) is not Tensor or x.dim() != 5 or x.dtype not in (torch.float32, torch.float64):
        return False
    if x.device.type != "cpu" or not lies_well(x) or _autocast_on("cpu") or _is_recorded():
        return False
    if torch.get_num_threads() > 1 and x.numel() < part.folded.least_values:    # type: ignore[union-attr, operator]
        return False
    for layer in part.modules():
        if layer is not part and (layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks):
            return False
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if type(layer) not in _NORMS or layer.running_mean is None:
                return False
    return all(p.dtype == x.dtype and p.device == x.device for p in part.parameters())


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


_NORMS = (nn.BatchNorm3d, PromotedNorm3d)


def can_execute(name: str) -> bool:
    """Whether this PyTorch has what the execution is written with."""
    if name == "folded":
        with contextlib.suppress(AttributeError, RuntimeError):     # which of them differs from version to version
            return bool(torch.ops.aten.convolution_backward) and bool(torch.ops.aten.threshold_backward.grad_input)
        return False
    return name != "compiled" or hasattr(nn.Module, "compile")


def check_execution(name: str) -> None:
    """ValueError for an execution that is not known or that this PyTorch cannot run."""
    if name not in EXECUTIONS:
        raise ValueError("--execution %s: takes one of %s" % (name, ", ".join(EXECUTIONS)))
    if name != "auto" and not can_execute(name):
        raise ValueError("--execution %s: this PyTorch (%s) is too old for it; take reference or auto"
                         % (name, torch.__version__))


def check_cuda_graphs(kind: str) -> None:
    """ValueError for a kind of device whose kernels cannot be recorded as CUDA graphs."""
    if kind not in GRAPH_DEVICES:
        raise ValueError("--cuda-graphs: records the kernels of a CUDA device, and this one is %s; drop it, or add "
                         "--device cuda" % kind)


def set_execution(net: nn.Module, name: str, half: bool = False, cuda_graphs: bool = False) -> str:
    """Sets how the network computes, in place: the same function, weights and names. Returns what will run.

    Call it when the network is on its device; it may be called again. `half` says that it will compute in a half type,
    which the folded path leaves to reference, as it does a trace. `cuda_graphs`: `compiled` records its kernels.
    Errors: those of check_execution and check_cuda_graphs; where auto's choice cannot run it is reference.
    """
    check_execution(name)
    kind = next(net.parameters()).device.type
    chosen = AUTO.get(kind, "reference") if name == "auto" else name
    if not can_execute(chosen) or half and chosen == "folded":
        chosen = "reference"
    workspace = Workspace(AUTO_LEAST_VALUES if name == "auto" else 0) if chosen == "folded" else None
    module: Any
    for module in net.modules():
        if hasattr(module, "folded"):
            module.folded = workspace
    whole: Any = net
    if hasattr(net, "_compiled_call_impl"):
        whole._compiled_call_impl = None
    if chosen == "compiled":
        whole.to(memory_format=torch.channels_last_3d)
        if cuda_graphs:
            check_cuda_graphs(kind)
            _compile_with_graphs(whole)
        else:
            whole.compile()
    return chosen


def _compile_with_graphs(net: Any) -> None:
    """Forward and backward pass become one CUDA graph each; what a graph gives lies where its last run wrote to.

    So each pass says first that results of earlier ones are done with, unless gradients of the same step wait to be
    added to: the step takes them away before its first micro-batch.
    """
    net.compile(mode="reduce-overhead")
    compiled, parameter = net._compiled_call_impl, next(net.parameters())

    def call(*args: Any, **kwargs: Any) -> Any:
        if parameter.grad is None or not torch.is_grad_enabled():
            torch.compiler.cudagraph_mark_step_begin()
        return compiled(*args, **kwargs)

    net._compiled_call_impl = call
