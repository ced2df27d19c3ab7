"""Mixed precision by apex's levels, on every device and PyTorch version.

O0 fp32; O1 operator-wise casting; O2 half weights and activations, BatchNorm in fp32, fp32 master weights; O3 all
half. The level changes the arithmetic, never the recipe. The optimizer steps the master weights, which are what
checkpoints hold. A step is begin, forward under cast, backward, step.
"""

import contextlib
import functools
import inspect
import math
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

import torch
from torch import nn


class Level(NamedTuple):
    """A row of apex's table of properties."""

    half_model: bool
    autocast: bool
    half_batchnorm: bool
    master_weights: bool
    loss_scale: Union[float, str]


LEVELS = {"O0": Level(False, False, False, False, 1.0), "O1": Level(False, True, False, False, "dynamic"),
          "O2": Level(True, False, False, True, "dynamic"), "O3": Level(True, False, True, False, 1.0)}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
Limit = Callable[[List[torch.Tensor]], None]  # changes gradients in place


class LossScaler:
    """The loss's factor: fixed, or from 2**16, doubled after 2000 good steps, halved by an overflow, at most 2**24."""

    def __init__(self, scale: Union[float, str]) -> None:
        self.dynamic = scale == "dynamic"
        self.scale = 2.0**16 if self.dynamic else float(scale)
        self.good_steps = 0
        self.skipped = 0

    def update(self, overflow: bool) -> None:
        """Takes note of one step."""
        self.skipped += overflow
        self.good_steps = 0 if overflow else self.good_steps + 1
        if self.dynamic and overflow:
            self.scale = max(self.scale / 2, 2.0**-24)
        elif self.dynamic and self.good_steps % 2000 == 0:
            self.scale = min(self.scale * 2, 2.0**24)

    def state_dict(self) -> Dict[str, Any]:
        return {"dynamic": self.dynamic, "scale": self.scale, "good_steps": self.good_steps, "skipped": self.skipped}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """A fixed scale stays what the options say; a dynamic one goes on only from a dynamic one."""
        if self.dynamic and state.get("dynamic"):
            self.scale, self.good_steps = float(state["scale"]), int(state["good_steps"])
        self.skipped = int(state["skipped"])


def resolve_dtype(level: str, wanted: str, auto: Optional[torch.dtype]) -> torch.dtype:
    """The type that half precision computes in. `auto` is the device's answer; None there means that it computes in
    fp32.
    """
    if level == "O0":
        return torch.float32
    return DTYPES[wanted] if wanted != "auto" else auto or torch.float32


class _Buffers:
    """A model's buffers as they were before a step: the forward pass moves BatchNorm's statistics before an overflow
    is known.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._before = model, [buffer.clone() for buffer in model.buffers()]

    def note(self) -> None:
        """Remembers what they hold."""
        _copy(self._before, self._now())

    def restore(self) -> None:
        """Puts it back."""
        _copy(self._now(), self._before)

    def _now(self) -> List[torch.Tensor]:
        return list(self._model.buffers())  # asked each time: older BatchNorms put new tensors into their place


class Precision:
    """One level at work: converts the network, keeps the master weights, scales the loss, steps the optimizer.

    `reason` says why half precision is not used where the level asks for it.
    """

    bucket_views = True  # whether DDP may keep gradients as views of its buckets

    def __init__(self, level: str, dtype: torch.dtype, device: torch.device,
                 loss_scale: Union[float, str, None] = None, reason: str = "as asked") -> None:
        self.level, self.dtype, self.device, self.row = level, dtype, device, LEVELS[level]
        self.half, self.reason = dtype != torch.float32, reason
        self.scaler = LossScaler(self.row.loss_scale if loss_scale is None else loss_scale)
        self.input_dtype = dtype if self.half and self.row.half_model else torch.float32
        self._pairs: List[Tuple[str, nn.Parameter, torch.Tensor]] = []
        self._model: nn.Module = nn.Module()
        self._buffers = _Buffers(self._model)

    @property
    def label(self) -> str:
        """What the results table says: `O2`, or `O2 (computed fp32)` where half precision was asked for and is not
        used.
        """
        return self.level + (" (computed fp32)" if self.level != "O0" and not self.half else "")

    @property
    def description(self) -> str:
        """One line for the log."""
        kind = "dynamic from %g" % self.scaler.scale if self.scaler.dynamic else "%g" % self.scaler.scale
        text = "precision %s, computed in %s, loss scale %s" % (self.level, _NAMES[self.dtype], kind)
        if self.level == "O0" or self.half:
            return text
        return text + ": %s; the level's bookkeeping stays" % self.reason

    def prepare(self, model: nn.Module) -> List[Tuple[str, torch.Tensor]]:
        """Converts an fp32 model in place; returns the named parameters that the optimizer steps: the masters where
        there are any.
        """
        self._pairs = []
        half_model = self.half and self.row.half_model
        stepped: List[Tuple[str, torch.Tensor]] = self._convert(model) if half_model else [*model.named_parameters()]
        self._watch(model)
        return stepped

    def _watch(self, model: nn.Module) -> None:
        """What begin() looks after, once the model has its types."""
        self._model, self._buffers = model, _Buffers(model)

    def _convert(self, model: nn.Module) -> List[Tuple[str, torch.Tensor]]:
        masters = {name: p.detach().clone() for name, p in model.named_parameters()}
        model.to(self.dtype)
        if not self.row.half_batchnorm:
            for module in model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.float()
        if not self.row.master_weights:
            return list(model.named_parameters())
        stepped: List[Tuple[str, torch.Tensor]] = []
        for name, parameter in model.named_parameters():
            if parameter.dtype == torch.float32:
                stepped.append((name, parameter))
            else:
                self._pairs.append((name, parameter, masters[name].requires_grad_()))
                stepped.append((name, masters[name]))
        return stepped

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Takes the optimizer that was built from what prepare() gave."""

    def begin(self) -> None:
        """Before a step's forward pass: gradients start anew, the buffers are noted."""
        for parameter in self._model.parameters():
            parameter.grad = None
        self._buffers.note()

    @contextlib.contextmanager
    def cast(self) -> Iterator[None]:
        """Around the forward pass."""
        if self.half and self.row.autocast:
            with _autocast(self.device.type, self.dtype):
                yield
        else:
            yield

    def backward(self, loss: torch.Tensor, last: bool = True) -> None:
        """Adds up gradients of the scaled loss; `last`: the step follows. Where the loss is infinite or no number, no
        gradient is one: so all processes learn of it by what they exchange.
        """
        (loss * self.scaler.scale if self.scaler.scale != 1.0 else loss).backward(one_if_finite(loss))

    def step(self, optimizer: torch.optim.Optimizer, limit: Optional[Limit] = None) -> bool:
        """Unscales, hands the gradients to `limit`, and steps unless one is infinite or no number: then parameters,
        momenta and buffers are what they were at begin() and the answer is False. One flag is read from the device.
        """
        for _, parameter, master in self._pairs:
            master.grad = None if parameter.grad is None else parameter.grad.float()
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if self.scaler.scale != 1.0:
            _multiply(gradients, 1.0 / self.scaler.scale)
        overflow = not all_finite(gradients)
        if overflow:
            self._buffers.restore()
        else:
            if limit is not None:
                limit(gradients)
            optimizer.step()
            with torch.no_grad():
                for _, parameter, master in self._pairs:
                    parameter.copy_(master)
        if self.half:
            self.scaler.update(overflow)
        else:
            self.scaler.skipped += overflow
        return not overflow

    def state_dict_of(self, model: nn.Module) -> Dict[str, torch.Tensor]:
        """The model's state dict in fp32, master weights in place of half ones."""
        return {key: value.float() if value.is_floating_point() else value for key, value in self.exact(model).items()}

    def exact(self, model: nn.Module) -> Dict[str, torch.Tensor]:
        """The model's state dict as it is, master weights in place of half ones: the tensors that steps change."""
        state = dict(model.state_dict())
        state.update((name, master.detach()) for name, _, master in self._pairs)
        return state

    def load_state_dict_into(self, model: nn.Module, state: Dict[str, torch.Tensor]) -> None:
        """Loads fp32 values into a prepared model and its masters."""
        model.load_state_dict(state)
        with torch.no_grad():
            for name, _, master in self._pairs:
                master.copy_(state[name])


def _autocast(device_type: str, dtype: torch.dtype) -> Any:
    """This PyTorch's autocast for a device and type; ValueError where it has none."""
    if hasattr(torch, "autocast"):
        with contextlib.suppress(RuntimeError):  # PyTorch 1.10 to 1.13 refuse devices that they do not know themselves
            return torch.autocast(device_type, dtype=dtype)
    old = getattr(getattr(getattr(torch, device_type, None), "amp", None), "autocast", None)
    if old is None:
        raise ValueError("this PyTorch has no autocast for %s" % device_type)
    if "dtype" in inspect.signature(old.__init__).parameters:
        return old(dtype=dtype)
    if dtype != torch.float16:
        raise ValueError("this PyTorch's autocast for %s knows fp16 alone" % device_type)
    return old()


def _copy(targets: List[torch.Tensor], sources: List[torch.Tensor]) -> None:
    with torch.no_grad():
        if hasattr(torch, "_foreach_copy_") and targets:
            for dtype in {target.dtype for target in targets}:
                torch._foreach_copy_([t for t in targets if t.dtype == dtype], [t for t in sources if t.dtype == dtype])
        else:
            for target, source in zip(targets, sources):
                target.copy_(source)


def _multiply(tensors: List[torch.Tensor], factor: float) -> None:
    if hasattr(torch, "_foreach_mul_"):
        torch._foreach_mul_(tensors, factor)
    else:
        for tensor in tensors:
            tensor.mul_(factor)


def one_if_finite(loss: torch.Tensor) -> torch.Tensor:
    """What backward starts from: 1, or no number where the loss is infinite or none."""
    loss = loss.detach()
    return torch.where(torch.isfinite(loss), torch.ones_like(loss), torch.full_like(loss, math.nan))


def all_finite(tensors: List[torch.Tensor]) -> bool:
    """Whether all are numbers, and small enough to be added up in float32; one read from the device."""
    if not _checks_at_once(tensors[0].device.type):  # a sum takes a tenth of the time of torch.isfinite
        return bool(torch.isfinite(torch.stack([t.sum(dtype=torch.float32) for t in tensors])).all().item())
    found, one = torch.zeros((), device=tensors[0].device), torch.ones((), device=tensors[0].device)
    for dtype in {t.dtype for t in tensors}:
        torch._amp_foreach_non_finite_check_and_unscale_([t for t in tensors if t.dtype == dtype], found, one)
    return not found.item()


@functools.lru_cache(maxsize=None)
def _checks_at_once(kind: str) -> bool:
    """Whether what PyTorch's own gradient scaler uses is there: it asks the device for a few things, not two a tensor.
    """
    if kind not in ("cpu", "cuda"):
        return False  # others may mean something else by it, such as the device's overflow flag
    try:
        tensor = torch.ones(1, device=kind)
        torch._amp_foreach_non_finite_check_and_unscale_([tensor], torch.zeros((), device=kind),
                                                         torch.ones((), device=kind))
    except (AttributeError, RuntimeError):
        return False
    return True
