"""What tools/benchmark.py holds a speed against: peak memory, the device's own matrix products and copies."""
import contextlib
import ctypes
import time
from typing import Any, Callable, Optional

import torch

from train import device as devices

_SIDES = {"cpu": 2048}      # of the square matrices: long enough for the best rate
_SIDE = 8192                # on anything else
_COPIED = {"cpu": 2 ** 27}  # bytes: more than caches hold
_COPY = 2 ** 30
_TRIES = 8


def reset_peak(device: torch.device) -> None:
    """Starts the count of peak_bytes again. What earlier work freed goes back to the system, so that it counts anew."""
    devices.reset_peak_memory(device)
    if device.type == "cpu":
        with contextlib.suppress(OSError, AttributeError, TypeError):   # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):      # not Linux, or not allowed: the peak is then the whole process's
            with open("/proc/self/clear_refs", "w") as switch:
                switch.write("5")


def peak_bytes(device: torch.device) -> Optional[int]:
    """Bytes of the device's memory at the peak; of a CPU, the process's resident memory. None where nobody says."""
    if device.type != "cpu":
        return devices.peak_memory(device)
    try:
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def allow_tf32(products: bool, convolutions: bool) -> None:
    """Whether fp32 matrix products and convolutions may round their factors to TF32, where the device has it."""
    if hasattr(torch.backends.cudnn, "allow_tf32"):
        torch.backends.cudnn.allow_tf32 = convolutions
    if hasattr(torch, "set_float32_matmul_precision"):
        torch.set_float32_matmul_precision("high" if products else "highest")


def _fastest(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the fastest of some tries."""
    seconds = []
    for _ in range(_TRIES):
        devices.synchronize(device)
        begin = time.perf_counter()
        work()
        devices.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the device's best product of two square matrices of the type."""
    side = _SIDES.get(device.type, _SIDE)
    left = torch.ones(side, side, dtype=dtype, device=device)
    return 2 * side ** 3 / _fastest(lambda: torch.mm(left, left), device)


def copy_rate(device: torch.device) -> float:
    """Bytes a second that the device reads and writes in a copy."""
    source = torch.ones(_COPIED.get(device.type, _COPY), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _fastest(lambda: target.copy_(source), device)
