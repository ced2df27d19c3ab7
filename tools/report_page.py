"""A run, or several side by side, as one HTML page: nothing beside it, nothing loaded."""
import math
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

from tools.report_compare import classes_compared, differing_options, results_table, swatch
from tools.report_films import Film, Mistake
from tools.report_html import Html, data_block, joined, page, tag
from tools.report_run import RunData, clock, whole
from tools.report_tables import (
    classes_part,
    confusions_table,
    epochs_table,
    facts_table,
    log_part,
    mistakes_part,
    options_table,
    scores_remedy,
    state_of,
    tiles,
)

ASSETS = Path(__file__).parent / "report_assets"
SCRIPTS = ("charts.js", "confusion.js", "page.js")
JUDGED = ("The stretch of each video that was judged, as fast as it was filmed. Hover over a film, focus it or tap it. "
          "Under it, what it was taken for and what it is, with their probabilities.")


class Mistakes(NamedTuple):
    """The mistakes of a run that are shown, with their films or why there is none."""

    shown: List[Mistake]
    films: List[Union[Film, str]]
    note: str = ""  # why there are no films at all


def render(runs: Sequence[RunData], mistakes: Sequence[Optional[Mistakes]]) -> bytes:
    """The page as a file; None for a run whose mistakes are not to be shown."""
    title = runs[0].name if len(runs) == 1 else "%d runs: %s" % (len(runs), ", ".join(run.name for run in runs))
    several = len(runs) > 1
    parts = [("Results", "results", _results(runs)), ("Curves", "curves", _curves(runs))]
    if not several:
        parts += _run_parts(runs[0], mistakes[0], "")
    else:
        compared = classes_compared(runs)
        parts += [("Classes side by side", "classes", compared)] if compared else []
        parts += [(run.name, "run-%d" % place, _whole_run(run, mistakes[place], place))
                  for place, run in enumerate(runs)]
    links = tag("nav", tag("ul", *[tag("li", tag("a", name, href="#" + key)) for name, key, _ in parts]),
                aria_label="Parts of this page")
    made = "made %s by tools.report" % clock(time.time())
    header = tag("header", tag("h1", title), tag("p", "GloRe for PyTorch · ", made, class_="quiet"), links)
    sections = [tag("section", "" if key.startswith("run-") else tag("h2", name), content, id=key, aria_label=name)
                for name, key, content in parts]
    noscript = tag("noscript", tag("p", "Curves, confusion matrix and films need JavaScript; tables do not.",
                                   class_="note"))
    data = data_block("data", {"runs": [_data_of(run) for run in runs]})
    body = joined([header, tag("main", noscript, *sections), data], "\n")
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    script = "".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return page(title, style, script, body)


def _results(runs: Sequence[RunData]) -> Html:
    if len(runs) > 1:
        return joined([results_table(runs), differing_options(runs)])
    run = runs[0]
    return joined([tag("p", state_of(run)), _notes(run), tiles(run)])


def _notes(run: RunData) -> Html:
    return tag("ul", *[tag("li", note) for note in run.notes], class_="note") if run.notes else Html("")


def _curves(runs: Sequence[RunData]) -> Html:
    if not any(run.series for run in runs):
        return tag("p", "Nothing is written in metrics.jsonl yet: the first line comes after 10 steps.", class_="note")
    return joined([tag("div", "", id="charts"), *[epochs_table(run) for run in runs]])


def _run_parts(run: RunData, mistakes: Optional[Mistakes], mark: str) -> List[Any]:
    """(name, key, content) of the parts that each run has for itself; `mark` makes keys of several runs differ."""
    parts: List[Any] = []
    if run.measured is None:
        parts.append(("Classes", "classes" + mark, scores_remedy(run)))
    else:
        place = mark.lstrip("-") or "0"
        matrix = tag("div", "", class_="confusion", data_run=place)
        parts += [("Classes", "classes" + mark, classes_part(run)),
                  ("Confusion matrix", "confusion" + mark, joined([matrix, confusions_table(run)]))]
        if mistakes is not None:
            note = tag("p", mistakes.note or JUDGED, class_="note" if mistakes.note else None)
            parts.append(("The most confident mistakes", "mistakes" + mark,
                          joined([note if mistakes.shown else "", mistakes_part(run, mistakes.shown, mistakes.films)])))
    parts.append(("Configuration and versions", "configuration" + mark,
                  joined([facts_table(run), options_table(run), log_part(run)])))
    return parts


def _whole_run(run: RunData, mistakes: Optional[Mistakes], place: int) -> Html:
    parts = [joined([tag("h3", name), content]) for name, _, content in _run_parts(run, mistakes, "-%d" % place)]
    return tag("details", tag("summary", tag("h2", swatch(place), run.name), state_of(run)), _notes(run), tiles(run),
               *parts, open=place == 0)


def _data_of(run: RunData) -> Dict[str, Any]:
    """What the script draws of a run. Of the confusion matrix the cells that are not 0: row, column, count."""
    series = {}
    for name, found in run.series.items():
        series[name] = {"x": found.x, "y": found.y, "n": found.num}
        if found.low is not None:
            series[name].update(lo=found.low, hi=found.high)
    data: Dict[str, Any] = {"name": run.name, "series": series, "epochSteps": whole(run.about.get("steps_per_epoch")),
                            "stepClips": whole(run.about.get("global_batch"))}
    if run.measured is not None:
        data["classes"] = run.measured["class_names"]
        data["cells"] = [[row, column, count] for row, counts in enumerate(run.measured["confusion_matrix"])
                         for column, count in enumerate(counts) if count]
    assert all(math.isfinite(value) for found in run.series.values() for value in found.y)
    return data
