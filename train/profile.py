"""`--profile`: a trace of some training steps and a table of where their time goes. Trains a little, saves nothing."""

from pathlib import Path
from typing import Any, Iterable

from train.device import synchronize, trace
from train.log import LOGGER
from train.loop import Trainer
from train.prefetch import Prefetcher

WARMUP_STEPS = 3
TRACED_STEPS = 5


def profile_steps(trainer: Trainer, batches: Iterable[Any], folder: Path) -> Path:
    """Traces TRACED_STEPS steps after WARMUP_STEPS; prints the table, writes DIR/trace.json (for chrome://tracing or
    Perfetto).
    """
    device = trainer.precision.device
    folder.mkdir(parents=True, exist_ok=True)
    trainer.model.train()
    source = iter(Prefetcher(batches, device))
    steps = ((i + 1, batch) for i, batch in enumerate(source))
    for number, batch in steps:
        trainer.step(batch, number)
        if number == WARMUP_STEPS:
            break
    synchronize(device)
    with trace(device) as profiler:
        for number, batch in steps:
            trainer.step(batch, number)
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
