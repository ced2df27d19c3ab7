"""What becomes torch.npu: the names of the real one that the toolkit and PyTorch itself ask for."""
from typing import Any, List, Optional

import torch

_sim = torch.ops.npu_sim
OutOfMemoryError = torch.OutOfMemoryError


def _index(device: Any) -> int:
    if device is None:
        return current_device()
    return device if isinstance(device, int) else torch.device(device).index or 0


def is_available() -> bool:
    return device_count() > 0


def is_initialized() -> bool:
    return True


def _is_in_bad_fork() -> bool:
    return False


def device_count() -> int:
    return int(_sim.device_count())


def current_device() -> int:
    return int(_sim.current_device())


def set_device(device: Any) -> None:
    _sim.set_device(_index(device))


def synchronize(device: Any = None) -> None:
    """Everything is already done."""


def empty_cache() -> None:
    """Nothing is kept."""


def manual_seed(seed: int) -> None:
    """The kernels draw from the CPU's generator."""
    torch.default_generator.manual_seed(seed)


manual_seed_all = manual_seed


def get_rng_state(device: Any = "npu") -> torch.Tensor:
    return torch.get_rng_state()


def set_rng_state(state: torch.Tensor, device: Any = "npu") -> None:
    torch.set_rng_state(state)


def memory_allocated(device: Any = None) -> int:
    return int(_sim.memory_allocated())


def max_memory_allocated(device: Any = None) -> int:
    return int(_sim.max_memory_allocated())


def reset_peak_memory_stats(device: Any = None) -> None:
    _sim.reset_peak_memory_stats()


def get_device_name(device: Optional[Any] = None) -> str:
    assert _index(device) < device_count()
    return "Simulated910"


def get_amp_supported_dtype() -> List[torch.dtype]:
    return [torch.float16, torch.bfloat16]


class device:  # noqa: N801  torch's own spelling
    """A context in which another device is the current one."""

    def __init__(self, device: Any) -> None:
        self._index, self._before = _index(device), 0

    def __enter__(self) -> None:
        self._before = current_device()
        _sim.set_device(self._index)

    def __exit__(self, *_: Any) -> None:
        _sim.set_device(self._before)
