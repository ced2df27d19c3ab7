"""PyTorch's launcher with a watchdog beside it, which ends this machine's part of a run that the launcher itself would
wait for: its processes frozen, or gone while the launcher waits for a machine that does not answer. And a signal that
asks the run to stop goes to the processes, which save and end; the launchers of PyTorch would kill them, or leave them.

    python -m train.agent torch.distributed.run --nnodes 2 … train_model.py …
"""
import contextlib
import os
import runpy
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from train.whereabouts import BEATS_FOLDER, LOST, Beat, read_beats

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # as in train/stopping.py, which would load torch
LOOK = 0.25  # seconds between two looks
GRACE = 5.0  # seconds that the launcher has to end by itself when a process is gone
JOINING = 600.0  # the same where it may start the processes again: it then waits for the other machines


class Verdict(NamedTuple):
    """What is to be done: `frozen` processes to be killed; `hopeless` says why the launcher must end, '' if not."""

    frozen: List[Beat]
    hopeless: str


class Watchdog:
    """Judges the beats of this machine's processes. Pure but for what it remembers: since when a process is gone."""

    def __init__(self) -> None:
        self._gone: Dict[Tuple[int, int], float] = {}  # (rank, pid) -> first seen so

    def judge(self, beats: List[Beat], alive: Callable[[int], bool], now: float) -> Verdict:
        """`now` is time.monotonic(); `alive` says whether a process is there."""
        frozen, reasons = [], []
        for beat in beats:
            there = alive(beat.pid)
            if beat.state == "running" and there and now - beat.at > beat.limit:
                frozen.append(beat)
            if beat.state == "lost" or (beat.state == "running" and not there):
                since = self._gone.setdefault((beat.rank, beat.pid), now)
                if now - since > (JOINING if beat.restarts_left > 0 else 0.0) + GRACE:
                    reasons.append("rank %d is gone (last at '%s') and nothing has followed for %.0f seconds"
                                   % (beat.rank, beat.place, now - since))
        return Verdict(frozen, "; ".join(reasons))


def is_alive(pid: int) -> bool:
    """Whether the process is there and not merely waiting to be collected."""
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(pid: int) -> None:
    """Ends a process at once, a stopped one too, and its session where it has one of its own."""
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def children(pid: int) -> Iterator[int]:
    """The processes that one has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(path.read_text(errors="replace").rpartition(")")[2].split()[1]) == pid:
                yield int(path.parent.name)


class Asked:
    """A signal that asks the run to stop, passed on to each process that the launcher has started, once."""

    def __init__(self) -> None:
        self.number = 0
        self._told: Set[int] = set()

    def take(self) -> None:
        """From now on such signals are this object's, whoever else in this process wants them."""
        install = signal.signal

        def note(number: int, frame: Any) -> None:
            self.number = number
            self.pass_on()
            if not self._told:  # nothing has begun: the signal ends the launcher, as any process
                install(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        for wanted in SIGNALS:
            install(wanted, note)
        signal.signal = lambda number, handler: (  # type: ignore[assignment]
            note if number in SIGNALS else install(number, handler))

    def pass_on(self) -> None:
        """To the processes that have not got it; those that are started again get it too."""
        for child in set(children(os.getpid())) - self._told if self.number else ():
            self._told.add(child)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, self.number)


def watch(folder: Path, asked: Asked, leave: Callable[[int], Any] = os._exit) -> None:
    """Looks at the beats until it has to end this process, and all that it watches."""
    dog = Watchdog()
    while True:
        time.sleep(LOOK)
        asked.pass_on()
        beats = read_beats(folder)
        verdict = dog.judge(beats, is_alive, time.monotonic())
        for beat in verdict.frozen:
            say("rank %d has given no sign of life for %.0f seconds, last at '%s': it is killed"
                % (beat.rank, time.monotonic() - beat.at, beat.place))
            kill(beat.pid)
        if verdict.hopeless:
            say(verdict.hopeless + ": this machine's part of the run ends")
            for beat in beats:
                if beat.state != "done" and is_alive(beat.pid):
                    kill(beat.pid)
            shutil.rmtree(str(folder), ignore_errors=True)
            leave(LOST)
            return


def say(text: str) -> None:
    print("watchdog: " + text, file=sys.stderr, flush=True)


def main(argv: Optional[List[str]] = None) -> None:
    """argv: a launcher's module and its arguments. Ends with the launcher's exit code, or LOST."""
    arguments = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory(prefix="glore_beats_") as folder:
        os.environ[BEATS_FOLDER] = folder
        asked = Asked()
        asked.take()
        threading.Thread(target=watch, args=(Path(folder), asked), daemon=True).start()
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
