"""What tools/benchmark.py holds a speed against: the host's peak memory, and the device's own matrix products."""
import contextlib
import ctypes
import time
from typing import Optional

import torch

from train import device as devices

_SIDE = 2048        # of the square matrices: long enough for the best rate, 16 MB each in fp32
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


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the device's best product of two square matrices of the type."""
    left = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)
    seconds = []
    for _ in range(_TRIES):
        devices.synchronize(device)
        begin = time.perf_counter()
        torch.mm(left, left)
        devices.synchronize(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * _SIDE ** 3 / min(seconds)
