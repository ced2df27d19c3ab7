"""Stopping when asked: a signal is taken note of, and all processes agree on the step after which the run ends."""

import signal
import time
from typing import Any, Callable, Dict, Iterable, Iterator, Optional

import torch

from train.distributed import all_reduce_sum, in_group

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
AGREE_SECONDS = 3.0  # between two agreements, as long as steps take about as long as before
MOST_CALLS = 50


class Asked(Exception):
    """The processes have agreed to stop."""


class StopRequest:
    """Whether somebody has asked this run to stop: `with` it, SIGTERM and SIGUSR1 do.

    Every process calls `agreed` after each piece of work that all have as many of. Alone, it answers at once; among
    others, one small sum every few seconds, at a call that all count out alike, carries the word.
    """

    def __init__(self, device: torch.device, clock: Callable[[], float] = time.monotonic) -> None:
        self.signal = 0
        self._device, self._clock = device, clock
        self._calls, self._next, self._since = 0, 1, clock()
        self._before: Dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.signal = number

    def agreed(self) -> bool:
        """Whether all processes stop here."""
        if not in_group():
            return bool(self.signal)
        self._calls += 1
        if self._calls < self._next:
            return False
        now = self._clock()
        milliseconds = int(1000 * (now - self._since)) + 1
        word = torch.tensor([bool(self.signal), milliseconds, 1], dtype=torch.int64, device=self._device)
        asked, total, processes = all_reduce_sum(word).tolist()
        calls = int(AGREE_SECONDS * 1000 * self._calls * processes / total)
        self._calls, self._next, self._since = 0, min(max(calls, 1), MOST_CALLS), now
        return asked > 0

    def watch(self, items: Iterable[Any], common: Optional[int] = None) -> Iterator[Any]:
        """The items; raises Asked before one of the first `common` (None: all), the number that all processes have."""
        for number, item in enumerate(items):
            if (common is None or number < common) and self.agreed():
                raise Asked
            yield item


class Stopped(Exception):
    """The run has ended before its time, as it was asked; the message says how to go on."""


def describe(number: int) -> str:
    """The signal's name, where this process got it."""
    return signal.Signals(number).name if number else "another process's signal"
