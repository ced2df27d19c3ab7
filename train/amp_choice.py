"""Chooses who computes a level of mixed precision and in which type, and tries it before anything slow starts."""

from typing import Optional, Union

import torch
from torch import nn

from train.amp import Precision, resolve_dtype
from train.amp_apex import ApexPrecision, load_apex
from train.config import OptionError


def fault_of(level: str, dtype: torch.dtype, device: torch.device) -> str:
    """Why a tiny network of the layers in use cannot train a step at that level in that type here; '' where it can."""
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1), nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2), nn.Flatten(),
                            nn.Linear(2, 2)).to(device)
    precision = Precision(level, dtype, device, 1.0)
    try:
        optimizer = torch.optim.SGD([p for _, p in precision.prepare(net)], lr=0.1)
        precision.begin()
        with precision.cast():
            logits = net(torch.ones(2, 2, 2, 2, 2, device=device).to(precision.input_dtype))  # (2, 2)
        precision.backward(logits.float().sum())
        precision.step(optimizer)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    return "" if logits.dtype == dtype else "it computes in %s" % str(logits.dtype).replace("torch.", "")


def build_precision(level: str, engine: str, wanted: str, auto: Optional[torch.dtype], device: torch.device,
                    loss_scale: Union[float, str, None] = None) -> Precision:
    """One level, computed by apex or natively. `auto` is the half type that suits the device, None where none does.

    What this PyTorch cannot do on the device is computed in fp32 where the type was left to us (`wanted` is auto), an
    OptionError where it was asked for.
    """
    if engine == "apex":
        return ApexPrecision(level, device, loss_scale, load_apex(device))
    dtype = resolve_dtype(level, wanted, auto)
    if dtype == torch.float32:
        reason = "--amp-dtype fp32" if wanted == "fp32" else "no fast half-precision arithmetic here"
        return Precision(level, dtype, device, loss_scale, reason)
    fault = fault_of(level, dtype, device)
    if fault and wanted != "auto":
        raise OptionError("--amp-dtype %s: this PyTorch (%s) cannot train at %s in it on %s: %s; take auto or fp32"
                          % (wanted, torch.__version__, level, device.type, fault))
    return Precision(level, torch.float32 if fault else dtype, device, loss_scale, fault)
