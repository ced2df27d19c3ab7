"""Prefetching and the share of time spent waiting for data, on a clock that the test moves."""

from typing import NamedTuple

import pytest
import torch

from train import prefetch
from train.prefetch import Prefetcher
from train.speed import SpeedMeter


class Batch(NamedTuple):
    """As ClipBatch, in small."""

    clip: torch.Tensor
    failures: tuple


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(prefetch.time, "perf_counter", lambda: now[0])
    return now


def slow_source(clock, seconds):
    for number, wait in enumerate(seconds):
        clock[0] += wait
        yield Batch(torch.tensor([number]), ("kept",))


def share_of_a_pass(clock, waits, step, meter):
    """One epoch as train/loop.py runs it."""
    source, waited = Prefetcher(slow_source(clock, waits), torch.device("cpu")), 0.0
    for number, batch in enumerate(source):
        if number == 0:
            meter.begin()
        assert batch.clip.tolist() == [number] and batch.failures == ("kept",)
        clock[0] += step
        meter.step(source.waited - waited)
        waited = source.waited
    meter.pause()


def test_the_share_is_the_time_in_the_loader_without_the_start_of_a_pass(clock):
    meter = SpeedMeter(torch.device("cpu"), clips_per_step=2, skip_steps=1)
    for _ in range(2):  # the first batch of a pass comes from cold workers: 50 seconds that count nowhere
        share_of_a_pass(clock, [50.0] + [1.0] * 9, 9.0, meter)
    speed = meter.total()
    # 19 steps of nine seconds (the very first left out), and 18 waits of one second
    assert speed.data_wait_share == pytest.approx(18 / (19 * 9 + 18))
    assert speed.clips_per_second == pytest.approx(19 * 2 / (19 * 9 + 18))


def test_no_wait_where_batches_are_there(clock):
    meter = SpeedMeter(torch.device("cpu"), clips_per_step=2, skip_steps=1)
    share_of_a_pass(clock, [3.0] + [0.0] * 9, 1.0, meter)
    assert meter.total().data_wait_share == 0


def test_an_empty_pass_gives_nothing():
    assert list(Prefetcher([], torch.device("cpu"))) == []
