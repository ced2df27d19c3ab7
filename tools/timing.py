"""What the tools share: interleaved timing, ratios of paired rounds, a Markdown table, rows as JSON."""

import json
import multiprocessing
import os
import statistics
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

from tools.outputs import write_whole


def processes() -> List[int]:
    """This process and its children."""
    return [os.getpid()] + [child.pid for child in multiprocessing.active_children() if child.pid]


def processor_seconds() -> float:
    """Seconds that this process and its children have been on a processor, as Linux counts them: whatever else the
    machine does. OSError where there is no /proc.
    """
    nanoseconds = 0
    for pid in processes():
        for thread in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/schedstat" % (pid, thread), encoding="ascii") as file:
                nanoseconds += int(file.read().split()[0])
    return nanoseconds / 1e9


def interleave(variants: Dict[str, Callable[[], Any]], rounds: int,
               after: Callable[[], None] = lambda: None,
               clock: Optional[Callable[[], float]] = None) -> Dict[str, List[float]]:
    """Seconds of each variant in each round; all of them take their turn in a round, so that a machine whose speed
    drifts favours none. `after` belongs to a variant's time: a device catches up in it. `clock`: the wall's by default.
    """
    clock = clock or time.perf_counter
    seconds: Dict[str, List[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            begin = clock()
            run()
            after()
            seconds[name].append(clock() - begin)
    return seconds


def paired_ratio(reference: Sequence[float], times: Sequence[float]) -> float:
    """How many times as fast as the reference: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(reference, times))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells."""
    lines = [columns, ["---"] * len(columns)] + [list(row) for row in rows]
    return "\n".join("| %s |" % " | ".join(line) for line in lines)


def write_json(path: str, content: Any, indent: Optional[int] = 2) -> None:
    """A list of rows, or whatever else JSON can hold, as a file that is whole or not there; - is standard output."""
    text = json.dumps(content, indent=indent) + "\n"
    if path == "-":
        print(text, end="", flush=True)
    else:
        write_whole(path, text.encode("utf-8"))
