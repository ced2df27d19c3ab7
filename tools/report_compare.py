"""The parts of a page that set several runs side by side: what came out, the options that differ, the classes."""
from typing import Any, List, Sequence, Tuple

from tools.report_html import Cell, Html, joined, number, table, tag
from tools.report_run import RunData
from tools.report_tables import outcome, say, state_of
from train.config import option_name

COLOURS = 8  # of runs, as in the page's style
LEFT_OUT = ("resume", "task_name", "allow_change", "dry_run")  # they change nothing of what is trained
COLUMNS = (("top-1, %", "top1", "%.2f", 1), ("top-5, %", "top5", "%.2f", 1), ("best top-1, %", "best", "%.2f", 1),
           ("mean of classes, %", "mean_class", "%.2f", 1), ("test loss", "loss", "%.4f", -1),
           ("calibration error", "calibration", "%.3f", -1), ("clips a second", "fps", "%.1f", 1),
           ("waiting for data, %", "wait", "%.0f", -1), ("time, s", "seconds", "%.0f", -1),
           ("peak memory, GiB", "memory", "%.2f", -1))  # head, key of outcome(), form, 1 where more is better


def swatch(place: int) -> Html:
    """The colour of a run."""
    return tag("span", "", class_="swatch c%d" % (place % COLOURS), aria_hidden="true")


def run_heads(runs: Sequence[RunData]) -> List[Html]:
    """The names of the runs with their colours."""
    return [joined([swatch(place), run.name]) for place, run in enumerate(runs)]


def results_table(runs: Sequence[RunData]) -> Html:
    """The figures of several runs, the best of each marked."""
    found = [outcome(run) for run in runs]
    best = {}  # as they are shown, since equal ones are equally good
    for _, key, form, sign in COLUMNS:
        known = [sign * value for value in (values[key] for values in found) if value is not None]
        best[key] = form % (sign * max(known)) if known and form % min(known) != form % max(known) else ""
    rows: List[List[Cell]] = []
    for run, name, values in zip(runs, run_heads(runs), found):
        figures = [number(values[key], form) for _, key, form, _ in COLUMNS]
        figures = [cell._replace(class_="n best") if cell.shown == best[column[1]] else cell
                   for cell, column in zip(figures, COLUMNS)]
        rows.append([Cell(name, run.name), Cell(state_of(run, False)), *figures])
    return table("Results of the runs; the best of each is bold", ["run", "state"] + [row[0] for row in COLUMNS], rows,
                 True)


def differing_options(runs: Sequence[RunData]) -> Html:
    """A row for each option, and each fact of the machine, in which the runs differ."""
    names = [name for name in dict.fromkeys(name for run in runs for name in run.config) if name not in LEFT_OUT]
    rows: List[List[Any]] = []
    for name in names:
        values = [say(run.config[name]) if name in run.config else "?" for run in runs]
        if len(set(values)) > 1:
            rows.append([Cell(option_name(name), None, "code")] + [Cell(value, None, "code") for value in values])
    for name in ("device", "amp_type", "torch"):
        values = [say(run.fact(name)) for run in runs]
        if len(set(values)) > 1:
            rows.append([name] + list(values))
    if not rows:
        return tag("p", "The runs differ in no option.")
    return table("Options in which the runs differ", ["option"] + run_heads(runs), rows)


def classes_compared(runs: Sequence[RunData]) -> Html:
    """The accuracy of each class in each of the runs that have the same classes as the first one that has any."""
    known = [(place, run) for place, run in enumerate(runs) if run.measured is not None]
    names = [row["class"] for row in known[0][1].measured["per_class"]] if known else []  # type: ignore[index]
    same = [(place, run.measured) for place, run in known
            if run.measured is not None and run.measured["class_names"] == names]
    if len(same) < 2:
        return Html("")
    rows: List[Tuple[float, List[Cell]]] = []
    for label, name in enumerate(names):
        values = [measured["per_class"][label]["top1"] for _, measured in same]
        there = [value for value in values if value is not None]
        spread = max(there) - min(there) if there else None
        rows.append((spread or 0, [Cell(name, name), *[number(value, "%.1f") for value in values + [spread]]]))
    rows.sort(key=lambda row: -row[0])
    heads = ["class"] + [joined([swatch(place), runs[place].name]) for place, _ in same] + ["spread"]
    return table("Accuracy of each class, top-1 in %", heads, [cells for _, cells in rows], True)
