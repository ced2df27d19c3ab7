"""The ledger of videos that cannot be read, and the budget that stops a run before it learns from what is left."""
import fcntl
import json
import os
from pathlib import Path
from typing import BinaryIO, Callable, Dict, Iterable, List, Optional, Sequence, Set, Tuple, TypeVar, Union

T = TypeVar("T")
Failure = Tuple[str, str]  # (path, reason)
NAMED_AT_MOST = 20


class BadVideoBudgetExceeded(ValueError):
    """More videos than allowed cannot be read. The message names them and says what to do."""


class BadVideoLedger:
    """Counts unreadable videos of a data set of `total`; each path counts once, however often it is met.

    More than `budget` (a share of `total`) of them stops the run, with `strict` the first one does. `path` names
    a file to which each is appended once as a line of JSON: path, reason. The processes of a run share that file: each
    takes over what the others wrote, so that the budget is the run's. What stood there before `open` is not written
    again, and does not count: it may have been mended.
    """

    def __init__(self, total: int, budget: float = 0.01, strict: bool = False,
                 path: Optional[Union[str, Path]] = None) -> None:
        if not 0 <= budget <= 1:
            raise ValueError("the budget of bad videos is a share from 0 to 1, not %r" % budget)
        self.total = total
        self.budget = budget
        self.strict = strict
        self.path = path
        self._reasons: Dict[str, str] = {}
        self._written: Set[str] = set()
        self._place = 0  # in the file: what stands before is known

    @property
    def count(self) -> int:
        """How many different videos have failed so far."""
        return len(self._reasons)

    @property
    def failures(self) -> List[Failure]:
        """All of them, in the order met."""
        return list(self._reasons.items())

    def open(self) -> None:
        """Takes note of what an earlier part of the run has written."""
        if self.path is not None and os.path.exists(self.path):
            with open(self.path, "rb") as file:
                self._read_on(file)

    def add(self, failures: Iterable[Sequence[str]] = ()) -> List[Failure]:
        """Takes the failures of a batch, and those of the other processes; returns what is new, to be logged once.

        Raises BadVideoBudgetExceeded, after writing them down, where the budget is used up.
        """
        before = self.count
        met: Dict[str, str] = {}
        for path, reason in failures:
            if path not in self._reasons:
                met.setdefault(path, reason)
        mine = list(met.items())
        fresh = mine if self.path is None else self._share(mine)
        self._reasons.update(mine)
        if self.count > before and (self.strict or self.count > self.budget * self.total):
            raise BadVideoBudgetExceeded(self._message())
        return fresh

    def _share(self, mine: List[Failure]) -> List[Failure]:
        """Reads what others have written, writes what they have not; returns both."""
        assert self.path is not None
        if not mine and (not os.path.exists(self.path) or os.path.getsize(self.path) == self._place):
            return []
        with open(self.path, "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            others = self._read_on(file)
            fresh = [failure for failure in mine if failure[0] not in self._written]
            lines = "".join(json.dumps({"path": path, "reason": reason}) + "\n" for path, reason in fresh)
            file.write(lines.encode("utf-8"))
            self._place = file.tell()
        self._written.update(path for path, _ in fresh)
        self._reasons.update(others)
        return others + fresh

    def _read_on(self, file: BinaryIO) -> List[Failure]:
        """The lines that were added since the last look."""
        file.seek(self._place)
        found: List[Failure] = []
        for line in file:
            try:
                row = json.loads(line.decode("utf-8"))
                found.append((row["path"], row["reason"]))
            except (ValueError, KeyError, TypeError):  # torn by a kill
                continue
        self._place = file.tell()
        self._written.update(path for path, _ in found)
        return found

    def _message(self) -> str:
        allowed = "none is allowed (strict)" if self.strict else "%g %% are allowed" % (100 * self.budget)
        return "%d of %d videos cannot be read, %s. Mend them, take them off the list, or allow more:\n%s" % (
            self.count, self.total, allowed, named(self.failures))


def named(failures: Sequence[Failure]) -> str:
    """One line for each failure, the first twenty of them."""
    return "\n".join(first_of(failures, lambda failure: "%s: %s" % tuple(failure)))


def first_of(items: Sequence[T], text: Callable[[T], str]) -> List[str]:
    """An indented line for each of the first twenty, and one that counts the rest."""
    lines = ["  " + text(item) for item in items[:NAMED_AT_MOST]]
    more = len(items) - NAMED_AT_MOST
    return lines + (["  ... and %d more" % more] if more > 0 else [])
