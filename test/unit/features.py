"""What this PyTorch can do, found by looking at it, and stand-ins for what the older ones lack."""
import inspect

import pytest
import torch
from torch.utils.data import DataLoader

# Before PyTorch 1.10 half precision on a CPU is a torso: layers are missing, and some of what is there aborts Python.
HALF_ON_CPU = hasattr(torch, "autocast")
needs_half = pytest.mark.skipif(not HALF_ON_CPU, reason="no half precision on the CPU in this PyTorch")
KEEPS_WORKERS = "persistent_workers" in inspect.signature(DataLoader.__init__).parameters


def assert_close(actual, expected, rtol=1.3e-6, atol=1e-5):
    """torch.testing.assert_close, which PyTorch 1.5 and 1.8 do not have: shape, type and values within rtol, atol."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    excess = (actual.double() - expected.double()).abs() - (atol + rtol * expected.double().abs())
    assert (excess <= 0).all(), "differs by %g beyond the tolerance" % excess.max().item()
