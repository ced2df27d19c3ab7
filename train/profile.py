"""`--profile`: a trace of some training steps and a table of where their time goes. Trains a little, saves nothing."""

from pathlib import Path
from typing import Any, Iterable

from train.device import synchronize, trace
from train.log import LOGGER
from train.loop import Trainer, by_step
from train.prefetch import Prefetcher

WARMUP_STEPS = 3
TRACED_STEPS = 5


def _step(trainer: Trainer, micro_batches: Iterable[Any], number: int) -> None:
    for micro, batch in enumerate(micro_batches):
        trainer.step(batch, number, micro)


def profile_steps(trainer: Trainer, batches: Iterable[Any], folder: Path) -> Path:
    """Traces TRACED_STEPS steps after WARMUP_STEPS; prints the table, writes DIR/trace.json (for chrome://tracing or
    Perfetto).
    """
    device = trainer.precision.device
    folder.mkdir(parents=True, exist_ok=True)
    trainer.model.train()
    steps = enumerate(by_step(Prefetcher(batches, device), trainer.slots.accumulate), 1)
    for number, micro_batches in steps:
        _step(trainer, micro_batches, number)
        if number == WARMUP_STEPS:
            break
    synchronize(device)
    with trace(device) as profiler:
        for number, micro_batches in steps:
            _step(trainer, micro_batches, number)
            if number == WARMUP_STEPS + TRACED_STEPS:
                break
        synchronize(device)
    path = folder / "trace.json"
    profiler.export_chrome_trace(str(path))
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    LOGGER.info("where %d steps spend their time:\n%s", TRACED_STEPS,
                profiler.key_averages().table(sort_by=order, row_limit=25))
    LOGGER.info("trace: %s", path)
    return path
