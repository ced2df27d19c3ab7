"""Brings an index up to date: several processes look at videos, one writes."""
import contextlib
import fcntl
import os
from typing import IO, Any, Iterator, NamedTuple, Optional, Sequence, Tuple

import cv2

from data.strict_decoding import strict_decoder
from dataset.examine import examine, unread
from dataset.index import Record, index_path, line_of, read_index, stamp_of
from dataset.workers import Lost, run_all

MOST_SECONDS = 1800  # for one video; then it is given up


class IndexInUse(ValueError):
    """Another command is writing the index."""


class _Task(NamedTuple):
    root: str
    path: str  # below the root
    kind: str
    known: Optional[Record]


def update_index(root: str, videos: Sequence[Tuple[str, str]], workers: int,
                 most_seconds: float = MOST_SECONDS) -> Iterator[Tuple[str, Any]]:
    """(path, Record) of each of the (path below the root, kind), as they are done; (path, reason) where the file cannot
    be opened at all. A record that still fits its file's size and time is kept.

    A new one is written as soon as it is made: after a stop of any kind only what was in work is done again.
    Raises IndexInUse, or OSError where the index cannot be written.
    """
    with _appending(index_path(root)) as file:
        known = {record.path: record for record in read_index(index_path(root)) if record is not None}
        tasks = (_Task(root, path, kind, known.get(path)) for path, kind in videos)
        for task, result in run_all(_look, tasks, workers, most_seconds, own=(file,)):
            if isinstance(result, Lost):
                result = _given_up(task, result.reason)
            if isinstance(result, Record) and result != task.known:
                file.write(line_of(result))
            yield task.path, result


@contextlib.contextmanager
def _appending(path: str) -> Iterator[IO[bytes]]:
    """The index, open at its end, for one process at a time."""
    with open(path, 'ab+', buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexInUse('%s: another command is writing it; wait until that is done' % path)
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b'\n':  # the last writer was killed within a line
                file.write(b'\n')
        yield file


def _look(task: _Task) -> Any:
    """The record, old or new; a word where the file cannot be opened."""
    try:
        return task.known if _still_true(task) else examine(task.root, task.path, task.kind)
    except OSError as error:
        return 'the file cannot be read (%s)' % error.strerror


def _still_true(task: _Task) -> bool:
    known = task.known
    if known is None or known.kind != task.kind or known.opencv != cv2.__version__:
        return False
    if task.kind == 'video' and strict_decoder() and not known.strict:
        return False
    size, mtime_ns = stamp_of(os.path.join(task.root, task.path), task.kind)
    return mtime_ns == known.facts.mtime_ns and (task.kind == 'rawframes' or size == known.facts.size)


def _given_up(task: _Task, reason: str) -> Any:
    """The record of a video that broke or held up its decoder."""
    try:
        return unread(task.root, task.path, task.kind, 'the decoder failed: %s' % reason)
    except OSError as error:
        return 'the file cannot be read (%s)' % error.strerror
