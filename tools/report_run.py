"""What a run left, read for its page. Every file may be missing, torn or foreign: what cannot be read is said in a
note, and values that are not of the expected kind count as absent.
"""
import json
import math
import os
import time
from array import array
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from tools.scores import Scored, measure, read_scores
from train.log import read_metrics
from train.record import RUN_NAME
from train.scores_file import SCORES_NAME

RESULT, METRICS, LOG, BAD = "result.json", "metrics.jsonl", "train.log", "bad_videos.jsonl"
MOST_BYTES = 1 << 26  # of a file of JSON
TAIL_BYTES, TAIL_LINES, NAMED = 1 << 15, 40, 50
POINTS = 600  # of a curve
MOST_CLASSES = 4096  # a matrix of more is nothing to look at
KEYS = {"train": ("loss", "top1", "lr", "fps", "data_wait_share", "gradient_norm", "skipped"),
        "epoch": ("epoch", "val_loss", "val_top1", "val_top5", "fps", "unreadable", "last_step_val_loss",
                  "last_step_val_top1")}


class Series(NamedTuple):
    """A number over the steps; `low` and `high` where several points were put into one, whose mean is `y`."""

    x: List[float]  # steps
    y: List[float]
    low: Optional[List[float]]
    high: Optional[List[float]]
    num: int  # points before they were put together


class RunData(NamedTuple):
    """A run as the page shows it."""

    name: str
    folder: str
    about: Dict[str, Any]  # run.json
    result: Dict[str, Any]  # result.json, {} before the end
    config: Dict[str, Any]
    series: Dict[str, Series]  # by kind.key
    last_step: int
    last_line: Optional[float]  # seconds since 1970 of the newest line
    scored: Optional[Scored]
    measured: Optional[Dict[str, Any]]
    log: List[str]  # the last lines
    bad_videos: List[Tuple[str, str]]
    num_bad: int
    notes: List[str]

    @property
    def finished(self) -> bool:
        """Whether result.json is of the newest steps."""
        return bool(self.result) and self.last_step <= (whole(self.result.get("steps")) or self.last_step)

    def fact(self, key: str) -> Any:
        """What result.json says, else run.json."""
        value = self.result.get(key)
        return self.about.get(key) if value is None else value

    def last(self, key: str) -> Optional[float]:
        """The newest value of a series."""
        series = self.series.get(key)
        return series.y[-1] if series else None


def read_run(path: str) -> RunData:
    """A folder exps/TASK. ValueError where no run lies there."""
    folder = Path(path)
    if not any((folder / name).is_file() for name in (RUN_NAME, METRICS, RESULT, LOG)):
        raise ValueError("RUN %s: no run lies there (no %s, %s or %s); give the folder of a run, exps/TASK"
                         % (path, METRICS, RESULT, LOG))
    notes: List[str] = []
    about, result = (_read_json(folder / name, notes) for name in (RUN_NAME, RESULT))
    told = [source["config"] for source in (about, result) if isinstance(source.get("config"), dict)]
    columns = _columns(folder / METRICS, notes)
    steps = [int(values[0].max()) for values in columns.values()]
    scored, measured = _scores(folder / SCORES_NAME, notes)
    bad = _bad_videos(folder / BAD, notes)
    run = RunData(os.path.basename(os.path.abspath(path)), path, about, result, told[0] if told else {},
                  {name: thinned(*values) for name, values in columns.items()}, max(steps, default=0),
                  _changed(folder / METRICS) or _changed(folder / LOG), scored, measured,
                  _last_lines(folder / LOG, notes), bad[:NAMED], len(bad), notes)
    said = run.last("epoch.val_top1")
    if measured is not None and said is not None and abs(measured["top1"] - 100 * said) > 0.01:
        notes.append("%s is of another evaluation than the run's last: its top-1 is %.2f %%, the last one's %.2f %%."
                     % (SCORES_NAME, measured["top1"], 100 * said))
    return run


def real(value: Any) -> Optional[float]:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def whole(value: Any) -> Optional[int]:
    """A whole number of 0 or more, or None for anything else."""
    fits = type(value) is int and 0 <= value < 1 << 53
    return value if fits else None


def _read_json(path: Path, notes: List[str]) -> Dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError("it is too large for one")
        with open(str(path), encoding="utf-8") as file:
            content = json.load(file)
        if not isinstance(content, dict):
            raise ValueError("it holds no names and values")
        return content
    except (OSError, ValueError, RecursionError) as error:
        notes.append("%s cannot be read: %s." % (path.name, error))
        return {}


def _columns(path: Path, notes: List[str]) -> Dict[str, Tuple[np.ndarray, np.ndarray]]:
    """Rising steps and values of each number of metrics.jsonl, by kind.key; of steps that were done twice, the last."""
    found: Dict[str, Tuple[Any, Any]] = {}  # arrays: a log may have a million rows
    try:
        for row in read_metrics(path):
            step = whole(row["step"])
            for key in KEYS.get(row["kind"], ()) if step is not None else ():
                value = real(row.get(key))
                if value is not None and step is not None:
                    steps, values = found.setdefault("%s.%s" % (row["kind"], key), (array("q"), array("d")))
                    steps.append(step)
                    values.append(value)
    except OSError as error:
        notes.append("%s cannot be read: %s." % (path.name, error))
    columns = {}
    for name, (steps, values) in found.items():
        rising, places = np.unique(np.asarray(steps)[::-1], return_index=True)
        columns[name] = rising, np.asarray(values)[::-1][places]
    return columns


def thinned(steps: np.ndarray, values: np.ndarray, most: int = POINTS) -> Series:
    """At most so many points: of a longer series the means of neighbours, with the lowest and highest of them."""
    count = len(steps)
    if count <= most:
        return Series(steps.tolist(), _short(values), None, None, count)
    starts = np.linspace(0, count, most + 1).astype(int)[:-1]
    sizes = np.diff(np.append(starts, count))
    mean_step, mean = (np.add.reduceat(row.astype(np.float64), starts) / sizes for row in (steps, values))
    return Series(mean_step.round().tolist(), _short(mean), _short(np.minimum.reduceat(values, starts)),
                  _short(np.maximum.reduceat(values, starts)), count)


def _short(values: np.ndarray) -> List[float]:
    return [float("%.6g" % value) for value in values.tolist()]


def _scores(path: Path, notes: List[str]) -> Tuple[Optional[Scored], Optional[Dict[str, Any]]]:
    if not path.is_file():
        return None, None
    try:
        scored = read_scores(str(path))
        if not scored.paths or not 0 < len(scored.class_names) <= MOST_CLASSES:
            raise ValueError("%s holds no video, or more than %d classes" % (path, MOST_CLASSES))
        return scored, measure(scored)
    except (OSError, ValueError, MemoryError) as error:
        notes.append("%s" % (error or "%s: no memory left to read it" % path))
        return None, None


def _bad_videos(path: Path, notes: List[str]) -> List[Tuple[str, str]]:
    found: Dict[str, str] = {}
    try:
        with open(str(path), encoding="utf-8", errors="replace") as lines:
            for line in iter(lambda: lines.readline(MOST_BYTES), ""):
                try:
                    row = json.loads(line)
                    found[str(row["path"])] = str(row["reason"])
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue
    except FileNotFoundError:
        pass
    except OSError as error:
        notes.append("%s cannot be read: %s." % (path.name, error))
    return list(found.items())


def _last_lines(path: Path, notes: List[str]) -> List[str]:
    if not path.is_file():
        return []
    try:
        with open(str(path), "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES)
            file.seek(start)
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError as error:
        notes.append("%s cannot be read: %s." % (path.name, error))
        return []
    return lines[1 if start else 0:][-TAIL_LINES:]


def _changed(path: Path) -> Optional[float]:
    try:
        return path.stat().st_mtime if path.stat().st_size else None
    except OSError:
        return None


def clock(seconds: float) -> str:
    """A point in time, in words."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
