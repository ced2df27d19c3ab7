"""What apex does to a model, an optimizer and torch's functions, on the CPU and in a half type that computes there."""

import contextlib
import sys
import types

import torch
from torch import nn
from torch.nn import functional

DEFAULT_SCALE = {"O1": "dynamic", "O2": "dynamic", "O3": 1.0}


class StandIn(types.ModuleType):
    """The module apex.amp. `initialized` is what initialize() was called with."""

    def __init__(self, monkeypatch, half):
        super().__init__("apex.amp")
        self._monkeypatch, self.half = monkeypatch, half
        self.casting, self.initialized = True, None

    def initialize(self, models, optimizers=None, opt_level="O1", keep_batchnorm_fp32=None, loss_scale=None,
                   verbosity=1):
        self.initialized = {"opt_level": opt_level, "keep_batchnorm_fp32": keep_batchnorm_fp32,
                            "loss_scale": loss_scale}
        assert all(p.dtype == torch.float32 for p in models.parameters())
        assert opt_level != "O1" or keep_batchnorm_fp32 is None  # apex refuses it there
        scale = DEFAULT_SCALE[opt_level] if loss_scale is None else loss_scale
        self.dynamic, self.unskipped = scale == "dynamic", 0
        self.scale = 2.0**16 if self.dynamic else float(scale)
        self.masters, self.pairs, self.skip = opt_level == "O2", None, False
        if opt_level == "O1":
            self._patch_torch()
        else:
            self._convert(models, keep_batchnorm_fp32)
        self._patch_optimizer(optimizers)
        return models, optimizers

    def _patch_torch(self):
        for module, names in ((functional, ("conv3d", "linear")), (torch, ("matmul",))):
            for name in names:
                self._monkeypatch.setattr(module, name, self._casting(getattr(module, name)))

    def _casting(self, function):
        def wrapper(*args, **kwargs):
            if self.casting:
                args = [a.to(self.half) if torch.is_tensor(a) and a.is_floating_point() else a for a in args]
            return function(*args, **kwargs)
        return wrapper

    @contextlib.contextmanager
    def disable_casts(self):
        self.casting = False
        yield
        self.casting = True

    def _convert(self, model, keep_batchnorm_fp32):
        model.to(self.half)
        for module in model.modules():
            if keep_batchnorm_fp32 and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.float()
        forward = model.forward
        model.forward = lambda x: forward(x.to(self.half)).float()

    def _patch_optimizer(self, optimizer):
        step, zero_grad = optimizer.step, optimizer.zero_grad

        def new_step():
            if self.skip:
                self.skip = False
                return
            with self.disable_casts():
                step()
            for parameter, master in self.pairs or ():
                parameter.data.copy_(master.data)

        def new_zero_grad():
            self._make_masters(optimizer)
            zero_grad()
            for parameter, _ in self.pairs:
                parameter.grad = None
        optimizer.step = new_step
        if self.masters:
            optimizer.zero_grad = new_zero_grad

    def _make_masters(self, optimizer):
        """Lazily, from the half weights, in place of them in the groups."""
        if self.pairs is not None:
            return
        self.pairs = []
        for group in optimizer.param_groups:
            for i, parameter in enumerate(group["params"]):
                if parameter.dtype == self.half:
                    group["params"][i] = parameter.detach().clone().float().requires_grad_()
                    self.pairs.append((parameter, group["params"][i]))

    @contextlib.contextmanager
    def scale_loss(self, loss, optimizer, delay_unscale=False):
        if not self.masters and not self.dynamic and self.scale == 1.0:
            yield loss.float()
            return
        yield loss.float() * self.scale
        if delay_unscale:
            return
        for parameter, master in self.pairs or ():
            master.grad = parameter.grad.float()
        gradients = [p.grad for p in self.master_params(optimizer)]
        for gradient in gradients:
            gradient.mul_(1.0 / self.scale)
        self.skip = self.dynamic and not all(bool(torch.isfinite(g).all()) for g in gradients)
        self.unskipped = 0 if self.skip else self.unskipped + 1
        self.scale = self.scale / 2 if self.skip else self.scale

    def master_params(self, optimizer):
        return [p for group in optimizer.param_groups for p in group["params"]]

    def state_dict(self):
        return {"loss_scaler0": {"loss_scale": self.scale, "unskipped": self.unskipped}}

    def load_state_dict(self, state):
        self.scale, self.unskipped = state["loss_scaler0"]["loss_scale"], state["loss_scaler0"]["unskipped"]


class AscendStandIn(StandIn):
    """Ascend's patch of it: it can combine gradients."""

    def initialize(self, *args, combine_grad=None, **options):
        result = super().initialize(*args, **options)
        self.initialized["combine_grad"] = combine_grad
        return result


def install(monkeypatch, half=torch.bfloat16, kind=StandIn):
    """Makes `import apex.amp` find it for the time of a test."""
    package, amp = types.ModuleType("apex"), kind(monkeypatch, half)
    package.__path__, package.amp = [], amp
    monkeypatch.setitem(sys.modules, "apex", package)
    monkeypatch.setitem(sys.modules, "apex.amp", amp)
    monkeypatch.setattr("train.amp_apex.DEVICES", ("cuda", "npu", "cpu"))
    return amp
