"""Batches on the device ahead of the step: while one computes, the next is fetched and copied on its own stream."""

import time
from typing import Any, Iterable, Iterator, Optional

import torch

from train.device import copy_stream, on_stream, wait_for_stream
from train.whereabouts import HERE


def to_device(batch: Any, device: torch.device) -> Any:
    """A named tuple's tensors on the device; from pinned memory the copy does not wait."""
    return batch._replace(
        **{name: value.to(device, non_blocking=True) for name, value in batch._asdict().items()
           if isinstance(value, torch.Tensor)}
    )


class Prefetcher:
    """Iterates over batches on the device. `waited` is the seconds spent waiting for the loader, the first batch of
    each pass left out.
    """

    def __init__(self, batches: Iterable[Any], device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._stream = copy_stream(device)
        self.waited = 0.0

    def __iter__(self) -> Iterator[Any]:
        source = iter(self._batches)
        ahead = self._fetch(source)
        self.waited = 0.0
        while ahead is not None:
            wait_for_stream(self._stream, self._device, [v for v in ahead if isinstance(v, torch.Tensor)])
            HERE.tick()
            yield ahead
            ahead = self._fetch(source)

    def _fetch(self, source: Iterator[Any]) -> Optional[Any]:
        begin = time.perf_counter()
        batch = next(source, None)
        self.waited += time.perf_counter() - begin
        if batch is None:
            return None
        with on_stream(self._stream, self._device):
            return to_device(batch, self._device)
