"""Speed in steady state: clips a second over all processes, and the share of that time spent waiting for data."""

import time
from typing import NamedTuple, Optional

import torch

from train.device import synchronize


class Speed(NamedTuple):
    """Clips a second over all processes; share of the time in which a step waited for its batch, 0 to 1."""

    clips_per_second: float
    data_wait_share: float


class SpeedMeter:
    """Times training steps; the first `skip_steps` of a process (allocation, algorithm search) and all between two
    epochs are left out.
    """

    def __init__(self, device: torch.device, clips_per_step: int, skip_steps: int = 5) -> None:
        self._device, self._clips_per_step, self._skip_steps = device, clips_per_step, skip_steps
        self._seen = 0
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self._since: Optional[float] = None
        self._mark = (0, 0.0, 0.0)

    def begin(self) -> None:
        """The first batch of a pass is there."""
        self._since = time.perf_counter()

    def step(self, waited: float) -> None:
        """A step was asked of the device; `waited` seconds for its batch."""
        self._seen += 1
        if self._seen == self._skip_steps:
            synchronize(self._device)
            self._steps, self._seconds, self._waited, self._mark = 0, 0.0, 0.0, (0, 0.0, 0.0)
            self._since = time.perf_counter()
        else:
            self._steps += 1
            self._waited += waited

    def pause(self) -> None:
        """Takes the time up to now, after the device has caught up."""
        synchronize(self._device)
        now = time.perf_counter()
        if self._since is not None:
            self._seconds += now - self._since
        self._since = None

    def interval(self) -> Speed:
        """Speed since the last call; the device catches up first."""
        running = self._since is not None
        self.pause()
        if running:
            self.begin()
        now = (self._steps, self._seconds, self._waited)
        speed = self._speed(*(a - b for a, b in zip(now, self._mark)))
        self._mark = now
        return speed

    def total(self) -> Speed:
        """Speed over the whole run so far."""
        return self._speed(self._steps, self._seconds, self._waited)

    def _speed(self, steps: float, seconds: float, waited: float) -> Speed:
        return (Speed(steps * self._clips_per_step / seconds, min(waited / seconds, 1.0)) if seconds > 0
                else Speed(0.0, 0.0))
