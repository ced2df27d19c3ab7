"""Large host buffers that stay from step to step, as the allocators of accelerators keep theirs.

The C library gives large blocks back to the system when they are freed, and each new one is then filled page by page
with zeros: on a CPU that is a sixth of a training step.
"""
import threading
from typing import Any, Dict, List, Sequence

import torch
from torch import Tensor

_LEAST_BYTES = 2 ** 20  # below, the C library keeps what is freed
_SPARE = 1.25           # so that a step's buffers of one size need not make room for those of another


def can_keep() -> bool:
    """Whether this PyTorch tells how many tensors use a storage; without that nothing is kept."""
    return hasattr(torch._C, "_storage_Use_Count") and hasattr(torch, "UntypedStorage")


class Workspace:
    """Gives out tensors whose storage it also holds, and gives a storage out again once no tensor uses it any more.

    It holds at most a quarter more bytes than were ever in use at one time. A copy, also a pickled one, is a new one.
    `least_values` is for those who compute in it: layers of fewer values they leave to others where threads share them.
    """

    def __init__(self, least_values: int = 0) -> None:
        self.least_values = least_values
        self._held: Dict[int, List[Any]] = {}       # bytes -> storages, given out or idle
        self._peak = 0
        self._lock = threading.Lock()

    def __reduce__(self) -> Any:
        return Workspace, (self.least_values,)

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """An uninitialised contiguous tensor of the shape, with the type and device of `like`."""
        tensor = torch.empty(0, dtype=like.dtype, device=like.device)
        size = like.element_size()
        for length in shape:
            size *= length
        if size < _LEAST_BYTES or like.device.type != "cpu" or not can_keep():
            return tensor.resize_(tuple(shape))
        with self._lock:
            storage = next((kept for kept in self._held.get(size, ()) if _is_idle(kept)), None)
            if storage is None:
                storage = self._allocate(size)
            return tensor.set_(storage, 0, tuple(shape), _strides(shape))

    def held_bytes(self) -> int:
        """Bytes held, in use or idle."""
        return sum(size * len(storages) for size, storages in self._held.items())

    def _allocate(self, size: int) -> Any:
        """A new storage; idle ones of other sizes go where too much would be held."""
        used = sum(size * sum(not _is_idle(storage) for storage in storages) for size, storages in self._held.items())
        self._peak = max(self._peak, used + size)
        for other in sorted(self._held):
            idle = [storage for storage in self._held[other] if _is_idle(storage)]
            while idle and self.held_bytes() + size > _SPARE * self._peak:
                gone = idle.pop()
                self._held[other] = [storage for storage in self._held[other] if storage is not gone]
        storage = torch.UntypedStorage(size)
        self._held.setdefault(size, []).append(storage)
        return storage


def _is_idle(storage: Any) -> bool:
    """Whether nothing but the workspace refers to the storage; saved tensors and views count, in C++ too."""
    return bool(torch._C._storage_Use_Count(storage._cdata) == 1)


def _strides(shape: Sequence[int]) -> Sequence[int]:
    strides, step = [], 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))
