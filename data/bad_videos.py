"""The ledger of videos that cannot be read, and the budget that stops a run before it learns from what is left."""
import json
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple, Union

Failure = Tuple[str, str]  # (path, reason)
NAMED_AT_MOST = 20


class BadVideoBudgetExceeded(ValueError):
    """More videos than allowed cannot be read. The message names them and says what to do."""


class BadVideoLedger:
    """Counts unreadable videos of a data set of `total`; each path counts once, however often it is met.

    More than `budget` (a share of `total`) of them stops the run, with `strict` the first one does. `path` names
    a file to which each is appended as a line of JSON: path, reason.
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

    @property
    def count(self) -> int:
        """How many different videos have failed so far."""
        return len(self._reasons)

    @property
    def failures(self) -> List[Failure]:
        """All of them, in the order met."""
        return list(self._reasons.items())

    def add(self, failures: Iterable[Sequence[str]]) -> List[Failure]:
        """Takes the failures of a batch; returns those met for the first time, to be logged once.

        Raises BadVideoBudgetExceeded, after writing them down, where the budget is used up.
        """
        fresh: List[Failure] = []
        for path, reason in failures:
            if path not in self._reasons:
                self._reasons[path] = reason
                fresh.append((path, reason))
        if fresh and self.path is not None:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps({"path": path, "reason": reason}) + "\n" for path, reason in fresh)
        if fresh and (self.strict or self.count > self.budget * self.total):
            raise BadVideoBudgetExceeded(self._message())
        return fresh

    def _message(self) -> str:
        allowed = "none is allowed (strict)" if self.strict else "%g %% are allowed" % (100 * self.budget)
        return "%d of %d videos cannot be read, %s. Mend them, take them off the list, or allow more:\n%s" % (
            self.count, self.total, allowed, named(self.failures))


def named(failures: Sequence[Failure]) -> str:
    """One line for each failure, the first twenty of them."""
    lines = ["  %s: %s" % failure for failure in failures[:NAMED_AT_MOST]]
    if len(failures) > NAMED_AT_MOST:
        lines.append("  ... and %d more" % (len(failures) - NAMED_AT_MOST))
    return "\n".join(lines)
