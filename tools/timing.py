"""What the benchmarks share: interleaved timing, ratios of paired rounds, a Markdown table, rows as JSON."""

import json
import statistics
import time
from typing import Any, Callable, Dict, List, Sequence


def interleave(variants: Dict[str, Callable[[], Any]], rounds: int,
               after: Callable[[], None] = lambda: None) -> Dict[str, List[float]]:
    """Seconds of each variant in each round; all of them take their turn in a round, so that a machine whose speed
    drifts favours none. `after` belongs to a variant's time: a device catches up in it.
    """
    seconds: Dict[str, List[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            begin = time.perf_counter()
            run()
            after()
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def paired_ratio(reference: Sequence[float], times: Sequence[float]) -> float:
    """How many times as fast as the reference: the median over the rounds."""
    return statistics.median(a / b for a, b in zip(reference, times))


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells."""
    lines = [columns, ["---"] * len(columns)] + [list(row) for row in rows]
    return "\n".join("| %s |" % " | ".join(line) for line in lines)


def write_json(path: str, rows: Sequence[Dict[str, Any]]) -> None:
    """One list of rows."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=2)
