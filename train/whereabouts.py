"""Where a process of a run stands, so that a hang has a name: marks set by the work, beats sent by threads beside it.

A beat goes to a file for this machine's watchdog (train/agent.py), and to the group's store for the other machines.
"""
import json
import os
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

BEATS_FOLDER = "GLORE_BEATS"  # environment variable: where the watchdog of this machine looks for beats
LOST = 3  # exit code of a process that had to leave without the others
PERIOD = 0.5  # seconds between two beats
LISTENING = 3.0  # seconds that a process listens for signs of life before it says who gives none
NAMED_AT_MOST = 16


class Whereabouts:
    """What this process is at, and the `watch` that tells others, where there are any. A mark costs three assignments,
    so every step may set one.
    """

    watch: Optional["Watch"] = None

    def __init__(self) -> None:
        self.at("starting")

    def at(self, place: str) -> None:
        """Something begins, such as 'epoch 2 step 17: training'."""
        self._place, self._batch, self._since = place, 0, time.monotonic()

    def tick(self) -> None:
        """One more batch of it."""
        self._batch, self._since = self._batch + 1, time.monotonic()

    @property
    def text(self) -> str:
        """In words."""
        return self._place + (", batch %d" % self._batch if self._batch else "")

    @property
    def seconds(self) -> float:
        """Since the last mark."""
        return time.monotonic() - self._since


HERE = Whereabouts()  # of this process, as its logger is


class Beat(NamedTuple):
    """What a process's file says. `state` is running, lost or done; `at` is time.monotonic() of this machine."""

    rank: int
    pid: int
    state: str
    place: str
    at: float
    limit: float
    restarts_left: int


def read_beats(folder: Path) -> List[Beat]:
    """The newest beat of each process of this machine."""
    beats = []
    for path in sorted(folder.glob("*.json")):
        try:
            beats.append(Beat(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError):  # just replaced
            continue
    return beats


class Watch:
    """The beats of one process of a group of `world_size`, and the end of a process that has stood still for `limit`
    seconds.

    `store` is a connection of its own to the group's key-value store, with set(key, text) and get(key) -> bytes, or
    None: then nothing is known of the others.
    """

    def __init__(self, rank: int, world_size: int, limit: float, store: Any = None, here: Whereabouts = HERE,
                 leave: Callable[[int], Any] = os._exit) -> None:
        self.rank, self.world_size, self.limit = rank, world_size, limit
        self._store, self._here, self._leave = store, here, leave
        folder = os.environ.get(BEATS_FOLDER)
        place = os.environ.get("LOCAL_RANK", str(rank))  # ranks may change at a restart, places of a machine do not
        self._file = None if folder is None else Path(folder) / (place + ".json")
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._left = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) - int(attempt)
        self._key = "glore/whereabouts/%s/%%d" % attempt
        self._state, self._ended, self._telling = "running", threading.Event(), threading.Lock()

    def start(self) -> None:
        """The first beat, and the threads that send the others."""
        self._write()
        threading.Thread(target=self._beat, daemon=True).start()
        if self._store is not None:
            self._publish(0)
            threading.Thread(target=self._publish_on, daemon=True).start()

    def stop(self) -> None:
        """The process leaves; `done` unless it was lost."""
        if self._state == "running":
            self._state = "done"
            self._write()
        self._ended.set()

    @property
    def is_lost(self) -> bool:
        """Whether the others could not be reached."""
        return self._state == "lost"

    def lost(self, why: str) -> None:
        """Says on standard error where this process stands and where the others do. Once."""
        if not self._telling.acquire(blocking=False):
            return
        self._state = "lost"
        self._write()
        print("rank %d of %d has lost the others at '%s' (%s)\n%s" % (
            self.rank, self.world_size, self._here.text, why, "\n".join("  " + line for line in self._others())),
            file=sys.stderr, flush=True)

    def _beat(self) -> None:
        while not self._ended.wait(min(PERIOD, self.limit / 10)):
            self._write()
            if self._here.seconds > self.limit and self._state == "running":
                self.lost("nothing has happened here for %.0f seconds, the limit is --dist-timeout %g"
                          % (self._here.seconds, self.limit))
                self._leave(LOST)

    def _write(self) -> None:
        if self._file is None:
            return
        beat = Beat(self.rank, os.getpid(), self._state, self._here.text, time.monotonic(), self.limit, self._left)
        fresh = self._file.with_suffix(".new%d" % threading.get_ident())
        try:
            fresh.write_text(json.dumps(beat._asdict()))
            fresh.replace(self._file)
        except OSError:  # the watchdog has gone, and its folder with it
            self._file = None

    def _publish(self, count: int) -> None:
        self._store.set(self._key % self.rank, "%d %s" % (count, self._here.text))

    def _publish_on(self) -> None:
        count = 0
        while not self._ended.wait(PERIOD):
            count += 1
            try:
                self._publish(count)
            except RuntimeError:  # the store has gone; whoever needs it will say so
                return

    def _others(self) -> List[str]:
        """Where the other processes stand, from two looks at the store. It may not answer, so a thread of its own asks.
        """
        if self._store is None:
            return ["nothing is known of the others"]
        looks: List[Dict[int, str]] = []
        asking = threading.Thread(target=self._look_twice, args=(looks,), daemon=True)
        asking.start()
        asking.join(LISTENING)
        if len(looks) < 2:
            return ["the store that the processes meet at does not answer: its machine, or the way to it, is gone"]
        return describe(looks[0], looks[1], [rank for rank in range(self.world_size) if rank != self.rank])

    def _look_twice(self, looks: List[Dict[int, str]]) -> None:
        try:
            looks.append(self._look())
            time.sleep(2.5 * PERIOD)
            looks.append(self._look())
        except RuntimeError:
            return

    def _look(self) -> Dict[int, str]:
        return {rank: self._store.get(self._key % rank).decode() for rank in range(self.world_size)}


def describe(before: Dict[int, str], after: Dict[int, str], ranks: List[int]) -> List[str]:
    """A line for each place: who is there, and whether a beat came between the two looks."""
    places: Dict[str, List[int]] = defaultdict(list)
    for rank in ranks:
        alive = before[rank] != after[rank]
        places[("at '%s'" if alive else "no sign of life, last at '%s'") % after[rank].partition(" ")[2]].append(rank)
    lines = []
    for place, there in sorted(places.items(), key=lambda row: (not row[0].startswith("no"), row[1])):
        shown = ", ".join(str(rank) for rank in there[:NAMED_AT_MOST])
        more = " and %d more" % (len(there) - NAMED_AT_MOST) if len(there) > NAMED_AT_MOST else ""
        lines.append("%s %s%s: %s" % ("rank" if len(there) == 1 else "ranks", shown, more, place))
    return lines
