"""`python -m tools.benchmark compare A.json B.json`: how many times as fast B's rows are as A's."""
import argparse
import json
from typing import Any, Dict, List, Sequence

from tools.timing import markdown


def read_rows(path: str) -> List[Dict[str, Any]]:
    """The rows of a file that another subcommand wrote. ValueError, which names the file, for anything else."""
    try:
        with open(path, encoding="utf-8") as file:
            rows = json.load(file)
        rows = [dict(row, variant=row.get("variant", row.get("case")), clips_per_second=float(row["clips_per_second"]))
                for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("%s holds no rows of tools.benchmark: %s" % (path, error))
    return rows


def compare(before: Sequence[Dict[str, Any]], after: Sequence[Dict[str, Any]]) -> List[List[str]]:
    """A row of cells for each variant, in the order of `before`; `-` where one side lacks it.

    The spread is that of the ratio: the slowest of B over the fastest of A, and the other way round.
    """
    sides = [{row["variant"]: row for row in rows} for rows in (before, after)]
    cells = []
    for name in list(sides[0]) + [name for name in sides[1] if name not in sides[0]]:
        pair = [side.get(name) for side in sides]
        speeds = ["-" if row is None else "%.2f" % row["clips_per_second"] for row in pair]
        ratio = spread = "-"
        if pair[0] and pair[1]:
            ratio = "%.2f" % (pair[1]["clips_per_second"] / pair[0]["clips_per_second"])
            if "spread" in pair[0] and "spread" in pair[1]:
                (slow, fast), (slow_after, fast_after) = pair[0]["spread"], pair[1]["spread"]
                spread = "%.2f to %.2f" % (slow_after / fast, fast_after / slow)
        own = ["-" if row is None or "ratio" not in row else "%.2f" % row["ratio"] for row in pair]
        cells.append([name] + speeds + [ratio, spread] + own)
    return cells


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    parser.add_argument("before", metavar="A.json", help="rows that another subcommand wrote with --json")
    parser.add_argument("after", metavar="B.json", help="the same of another commit, machine or setting")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Prints the table."""
    try:
        cells = compare(read_rows(options.before), read_rows(options.after))
    except ValueError as error:
        parser.error(str(error))
    print(markdown(["variant", "A clips/s", "B clips/s", "B / A", "spread", "A's own ratio", "B's own ratio"], cells))
    return 0
