"""Mixed precision computed by apex (NVIDIA's, or Ascend's patch of it) behind the interface of train.amp.Precision.
Sole importer of apex.
"""

import contextlib
import inspect
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import torch
from torch import nn

from train.amp import Limit, LossScaler, Precision, all_finite, one_if_finite
from train.config import OptionError

DEVICES = ("cuda", "npu")
_HELP = ("take --amp-engine native, or install a tree that holds amp: https://github.com/NVIDIA/apex before May 2025, "
         "or for NPUs https://github.com/Ascend/apex; never `pip install apex`, which is another project")
_NEEDED = ("initialize", "scale_loss", "master_params", "state_dict", "load_state_dict")


def load_apex(device: torch.device) -> Any:
    """The module apex.amp. OptionError where there is none, where it is another project's, and where it cannot compute
    on that device.
    """
    if device.type not in DEVICES:
        raise OptionError("--amp-engine apex: apex computes on %s, not on %s; take --amp-engine native"
                          % (" and ".join(DEVICES), device.type))
    try:
        import apex.amp
    except Exception as error:  # another project of that name may do anything while it loads
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing == "apex":
            raise OptionError("--amp-engine apex: no apex is installed; " + _HELP)
        if missing == "apex.amp":
            raise OptionError("--amp-engine apex: the apex installed here has no amp: it is another project of that "
                              "name, or NVIDIA's of May 2025 or later; " + _HELP)
        raise OptionError("--amp-engine apex: the apex installed here does not load (%s: %s): it is another project of "
                          "that name, or not of this PyTorch's age; %s" % (type(error).__name__, error, _HELP))
    if not all(hasattr(apex.amp, name) for name in _NEEDED):
        raise OptionError("--amp-engine apex: the apex installed here is another project of that name; " + _HELP)
    return apex.amp


class _ApexScaler(LossScaler):
    """apex's scaler seen as ours; `good_steps`, `scale` and the checkpoint's fields are the same."""

    def __init__(self, scale: Union[float, str], amp: Any) -> None:
        super().__init__(scale)
        self._amp = amp

    def note(self, skipped: bool) -> bool:
        """Takes note of a step that apex has done; whether it, or the caller (`skipped`), left it out."""
        now = self._amp.state_dict()["loss_scaler0"]
        skipped = skipped or now["loss_scale"] < self.scale
        self.skipped += skipped
        self.scale, self.good_steps = float(now["loss_scale"]), int(now["unskipped"])
        return skipped

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        super().load_state_dict(state)
        if self.dynamic:
            self._amp.load_state_dict({"loss_scaler0": {"loss_scale": self.scale, "unskipped": self.good_steps}})


class ApexPrecision(Precision):
    """apex at work: it casts, keeps the master weights, scales the loss and skips; the recipe stays the optimizer's."""

    bucket_views = False  # apex's zero_grad detaches gradients in place, which views do not allow

    def __init__(self, level: str, device: torch.device, loss_scale: Union[float, str, None], amp: Any) -> None:
        super().__init__(level, torch.float16, device, loss_scale)
        self._amp: Any = amp
        self.scaler: LossScaler = _ApexScaler("dynamic" if self.scaler.dynamic else self.scaler.scale, amp)
        self.input_dtype = torch.float32  # apex casts what it is given

    @property
    def description(self) -> str:
        return super().description + ", by apex"

    def prepare(self, model: nn.Module) -> List[Tuple[str, torch.Tensor]]:
        """The model's own parameters: apex converts the model together with the optimizer."""
        return list(model.named_parameters())

    def attach(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Hands both to apex, in place; the master weights start from the fp32 ones, not from their half copies."""
        exact = {name: value.clone() for name, value in model.state_dict().items()}
        options: Dict[str, Any] = {"loss_scale": "dynamic" if self.scaler.dynamic else self.scaler.scale}
        if self.row.half_model:
            options["keep_batchnorm_fp32"] = not self.row.half_batchnorm
        elif self.row.autocast:
            self._keep_graphs_exact(model)
        known = inspect.signature(self._amp.initialize).parameters
        if "combine_grad" in known and self.device.type == "npu" and self.level != "O3":
            options["combine_grad"] = True  # Ascend's: one tensor of all gradients; not for O3
        for group in optimizer.param_groups if self.level == "O3" else ():
            group["fused"] = False  # chosen for fp32 parameters, which will be half
        self._amp.initialize(model, optimizer, opt_level=self.level, verbosity=0, **options)
        optimizer.zero_grad()  # apex makes the master weights here
        self._optimizer = optimizer
        stepped = {name: p for group in optimizer.param_groups for name, p in zip(group["names"], group["params"])}
        self._pairs = [(name, p, stepped[name]) for name, p in model.named_parameters() if stepped[name] is not p]
        self._watch(model)
        self.load_state_dict_into(model, exact)

    def _keep_graphs_exact(self, model: nn.Module) -> None:
        """apex patches torch's functions, so autocast's switch does not reach it: graph units get apex's own."""
        for module in model.modules():
            if hasattr(module, "full_precision"):
                setattr(module, "full_precision", lambda tensor: self._amp.disable_casts())  # noqa: B010

    def begin(self) -> None:
        """As apex wants it: combined gradients are zeroed where they lie, never dropped."""
        self._optimizer.zero_grad()
        self._buffers.note()

    @contextlib.contextmanager
    def cast(self) -> Iterator[None]:
        """apex has patched model or torch."""
        yield

    def backward(self, loss: torch.Tensor, last: bool = True) -> None:
        """Before the last batch of a step apex leaves gradients scaled where they are."""
        options = {} if last else {"delay_unscale": True}
        with self._amp.scale_loss(loss, self._optimizer, **options) as scaled:
            scaled.backward(one_if_finite(loss))

    def step(self, optimizer: torch.optim.Optimizer, limit: Optional[Limit] = None) -> bool:
        """apex itself leaves out a step whose dynamic scale overflowed; with a fixed one it would step, so the flag is
        read here.
        """
        gradients = [p.grad for p in self._amp.master_params(optimizer) if p.grad is not None]
        overflow = not self.scaler.dynamic and not all_finite(gradients)
        if not overflow:
            if limit is not None:
                limit(gradients)
            optimizer.step()
        assert isinstance(self.scaler, _ApexScaler)
        overflow = self.scaler.note(overflow)
        if overflow:
            self._buffers.restore()
        return not overflow
