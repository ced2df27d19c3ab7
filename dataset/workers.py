"""A function over many tasks in several processes, where a task may crash its process or never end: that costs the
one task, and its process is replaced.
"""
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing import connection
from typing import IO, Any, Callable, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

PR_SET_PDEATHSIG = 1  # prctl's
LOOK_UP = 1.0  # seconds after which an idle process looks whether its parent still lives


class Lost(NamedTuple):
    """In place of a task's result: what became of its process."""

    reason: str


def run_all(function: Callable[[Any], Any], tasks: Iterable[Any], processes: int, most_seconds: float,
            own: Sequence[IO[bytes]] = ()) -> Iterator[Tuple[Any, Any]]:
    """(task, result) of each task as they end; `Lost` is the result of one that crashed or took over `most_seconds`.

    `function` lets no exception out. Leaving the iteration ends the processes. `own`: open files without a buffer that
    the processes give up at once, so that a lock on them ends with this process.
    """
    waiting = iter(tasks)
    crew: List[_Helper] = []
    try:
        for _, task in zip(range(max(1, processes)), waiting):
            crew.append(_Helper(function, task, own))
        while crew:
            ended = connection.wait([helper.pipe for helper in crew], timeout=min(LOOK_UP, most_seconds))
            for helper in list(crew):
                if helper.pipe not in ended and time.monotonic() - helper.began < most_seconds:
                    continue
                result = helper.result() if helper.pipe in ended else helper.kill(
                    'not done after %d seconds' % most_seconds)
                yield helper.task, result
                crew.remove(helper)
                for task in waiting:
                    crew.append(_Helper(function, task, own) if isinstance(result, Lost) else helper.give(task))
                    break
                else:
                    helper.kill('')
    finally:
        for helper in crew:
            helper.kill('')


class _Helper:
    """A process at work on one task after another."""

    def __init__(self, function: Callable[[Any], Any], task: Any, own: Sequence[IO[bytes]]) -> None:
        context = multiprocessing.get_context('fork')
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(function, far_end, os.getpid(), own), daemon=True)
        self.process.start()
        far_end.close()  # so that the process's end is the end of its pipe
        self.give(task)

    def give(self, task: Any) -> '_Helper':
        self.task, self.began = task, time.monotonic()
        self.pipe.send(task)
        return self

    def result(self) -> Any:
        try:
            return self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return Lost('its process ended (exit code %s)' % self.process.exitcode)

    def kill(self, reason: str) -> Lost:
        self.process.kill()
        self.process.join()
        return Lost(reason)


def _serve(function: Callable[[Any], Any], pipe: connection.Connection, parent: int, own: Sequence[IO[bytes]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    if sys.platform.startswith('linux'):  # killed with the parent: what it is writing is in the way of the next run
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for file in own:
        file.close()
    try:
        while os.getppid() == parent:
            if pipe.poll(LOOK_UP):
                pipe.send(function(pipe.recv()))
    except (EOFError, BrokenPipeError):  # the parent was killed
        pass
