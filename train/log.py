"""What a run says: rank-0 lines, a progress bar on a terminal, TensorBoard scalars, metrics.jsonl. Other processes
only warn.
"""

import json
import logging
import logging.handlers
import math
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

try:
    from tqdm import tqdm
except ImportError:  # the bar is a comfort, not a need
    tqdm = None

LOGGER = logging.getLogger("glore")
LONGEST_ROW = 1 << 16  # letters
_ROOMS = ("network", "data", "dataset", "train")  # their loggers speak through ours


def start_logging(rank: int) -> None:
    """Rank 0 writes lines to standard output, and keeps them for the file that is named later (`log_to`); the others
    write warnings, with their rank, to standard error.
    """
    stop_logging()
    mark = "" if rank == 0 else "[rank %d] " % rank
    handlers: List[logging.Handler] = [_LineAboveBar() if rank == 0 else logging.StreamHandler(sys.stderr)]
    if rank == 0:
        handlers.append(logging.handlers.MemoryHandler(1 << 20, logging.CRITICAL + 1))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s " + mark + "%(message)s", "%H:%M:%S"))
    for logger in _loggers():
        logger.propagate = False
        logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)
        for handler in handlers:
            logger.addHandler(handler)


def log_to(path: Path) -> None:
    """From now on rank 0's lines, and those kept so far, go to the file as well. OSError where it cannot be written."""
    kept = [handler for handler in LOGGER.handlers if isinstance(handler, logging.handlers.MemoryHandler)]
    for memory in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(str(path), encoding="utf-8")
        file.setFormatter(memory.formatter)
        memory.setTarget(file)
        memory.flush()
        for logger in _loggers():
            logger.removeHandler(memory)
            logger.addHandler(file)


def note_failure(message: str) -> None:
    """A last line for the log file alone: why the run ends, which has been printed."""
    record = LOGGER.makeRecord(LOGGER.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in LOGGER.handlers:
        if isinstance(handler, _LogFile):
            handler.handle(record)


def stop_logging() -> None:
    """Closes the log file; nothing is written any more."""
    for logger in _loggers():
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()


def _loggers() -> List[logging.Logger]:
    return [LOGGER] + [logging.getLogger(room) for room in _ROOMS]


class _LineAboveBar(logging.Handler):
    """Prints a record without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if tqdm is None:
            print(self.format(record))
        else:
            tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _LogFile(logging.FileHandler):
    """A log that a full disk silences: the lines are on the terminal as well."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def progress(iterable: Iterable[Any], total: int, text: str, enabled: bool = True, done: int = 0) -> Iterator[Any]:
    """The iterable behind a progress bar, where standard error is a terminal and tqdm is installed."""
    if tqdm is None or not enabled or not sys.stderr.isatty():
        return iter(iterable)
    return iter(tqdm(iterable, total=total, initial=done, desc=text, unit="step", leave=False, dynamic_ncols=True))


class Lines:
    """A file of lines of JSON that a killed run and its successor share; None is no file. What cannot be written is
    said once, and does not stop the run.
    """

    def __init__(self, path: Optional[Path]) -> None:
        self._path, self._file, self._fine = path, None, True
        self.enabled = path is not None
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(str(path), "a+b")
        if self._file.seek(0, os.SEEK_END):
            self._file.seek(-1, os.SEEK_END)
            if self._file.read() != b"\n":  # torn by a kill
                self._file.write(b"\n")

    def write(self, row: Dict[str, Any]) -> None:
        """One line, at once. Numbers that are none become null."""
        if self._file is None:
            return
        plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        self._do(lambda file: (file.write(json.dumps(plain).encode("utf-8") + b"\n"), file.flush()))

    def close(self) -> None:
        """Writes what is still held back."""
        self._do(lambda file: file.close())

    def _do(self, action: Callable[[Any], Any]) -> None:
        try:
            if self._file is not None:
                action(self._file)
        except OSError as error:
            if self._fine:
                LOGGER.warning("%s: %s; the run goes on", self._path, error)
            self._fine = False


class Scalars:
    """Numbers of a run over its steps: TensorBoard's event files, and a line of JSON each in metrics.jsonl."""

    def __init__(self, folder: Path, enabled: bool) -> None:
        self._lines, self._board = Lines(folder / "metrics.jsonl" if enabled else None), None
        if not enabled:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            LOGGER.info("TensorBoard is not installed: its scalars are left out, metrics.jsonl has them all")
        else:
            self._board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, kind: str, step: int, values: Dict[str, Any]) -> None:
        """A row `kind` ('train' or 'epoch') at a step; numbers go to TensorBoard too."""
        self._lines.write(dict({"kind": kind, "step": step}, **values))
        numbers = {"%s/%s" % (kind, name): v for name, v in values.items() if isinstance(v, (int, float))}
        self._to_board(lambda board: [board.add_scalar(name, number, step) for name, number in numbers.items()])

    def close(self) -> None:
        """Writes what is still held back."""
        self._lines.close()
        self._to_board(lambda board: board.close())

    def _to_board(self, action: Callable[[Any], Any]) -> None:
        try:
            if self._board is not None:
                action(self._board)
        except OSError as error:
            self._board = None
            LOGGER.warning("TensorBoard's files: %s; they end here", error)


def read_metrics(path: Path) -> Iterator[Dict[str, Any]]:
    """The rows of a metrics.jsonl, each a dictionary with a kind and a step; what a kill has torn, and whatever else is
    no row, is left out. A resumed run repeats steps: a row read later replaces.
    """
    if not path.is_file():
        return
    with open(str(path), encoding="utf-8", errors="replace") as lines:
        for line in iter(lambda: lines.readline(LONGEST_ROW), ""):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and isinstance(row.get("kind"), str) and type(row.get("step")) is int:
                yield row
