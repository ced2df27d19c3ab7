"""The parts of a run's page that are words and tables: what came out, options, classes, mistakes, the log."""
import os
import shlex
from typing import Any, Dict, List, Optional, Sequence, Union

from tools.report_films import Film, Mistake
from tools.report_html import Cell, Html, escaped, joined, number, table, tag
from tools.report_run import RunData, clock, real, whole
from train.config import TrainConfig, option_name
from train.scores_file import SCORES_NAME

EXTREMES = 8  # classes shown as best and as worst
FEW = 20  # classes that are all shown at once
CONFUSIONS, EPOCHS = 15, 200  # rows of a table


def duration(seconds: Optional[float]) -> str:
    """Seconds in words."""
    if seconds is None:
        return "–"
    if seconds < 120:
        return "%.0f s" % seconds
    return "%.0f min" % (seconds / 60) if seconds < 7200 else "%.1f h" % (seconds / 3600)


def memory(run: RunData) -> Optional[float]:
    """Peak memory of the device in GiB; of a CPU that of the process."""
    found = real(run.result.get("peak_memory_bytes")) or real(run.result.get("peak_host_memory_bytes"))
    return None if found is None else found / (1 << 30)


def outcome(run: RunData) -> Dict[str, Optional[float]]:
    """The figures of a run: from result.json, before its end from the newest lines."""
    result = run.result if run.finished else {}
    measured, tests = run.measured or {}, run.series.get("epoch.val_top1")

    def known(key: str, series: str, factor: float = 1.0) -> Optional[float]:
        value, newest = real(result.get(key)), run.last(series)
        return value if value is not None else None if newest is None else factor * newest

    wait = known("data_wait_share", "train.data_wait_share")
    return {"top1": known("accuracy_top1", "epoch.val_top1", 100),
            "top5": known("accuracy_top5", "epoch.val_top5", 100),
            "best": 100 * max(tests.high or tests.y) if tests else None,
            "mean_class": real(measured.get("mean_class_accuracy")),
            "calibration": real(measured.get("calibration", {}).get("expected_calibration_error")),
            "loss": known("loss", "epoch.val_loss"), "fps": known("fps", "train.fps"),
            "wait": None if wait is None else 100 * wait, "seconds": real(result.get("seconds")), "memory": memory(run)}


def state_of(run: RunData, with_time: bool = True) -> Html:
    """Whether the run has ended, and when its newest line was written."""
    steps, end = run.last_step, whole(run.about.get("last_step"))
    if run.finished:
        return joined([tag("span", "finished", class_="chip done"), " after %s steps" % format(steps, ",")])
    line = "" if run.last_line is None or not with_time else "; its newest line is of %s" % clock(run.last_line)
    return joined([tag("span", "not finished", class_="chip open"), " step %s%s%s" % (
        format(steps, ","), " of %s" % format(end, ",") if end else "", line)])


def tiles(run: RunData) -> Html:
    """The figures of one run, large."""
    found = outcome(run)
    peak = "peak memory, GiB" + ("" if run.result.get("peak_memory_bytes") else " (host)")
    rows = [("top-1 accuracy, %", "top1", "%.2f"), ("top-5 accuracy, %", "top5", "%.2f"),
            ("mean of the classes, %", "mean_class", "%.2f"), ("best top-1 of an epoch, %", "best", "%.2f"),
            ("test loss", "loss", "%.3f"), ("calibration error", "calibration", "%.3f"),
            ("clips a second", "fps", "%.1f"), ("waiting for data, %", "wait", "%.0f"), (peak, "memory", "%.2f")]
    cells = [(name, "–" if found[key] is None else form % found[key]) for name, key, form in rows]
    cells.append(("time taken", duration(found["seconds"])))
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in cells], class_="tiles")


def say(value: Any) -> str:
    """A value of the configuration, in words."""
    if value in (None, "", [], ()):
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def options_table(run: RunData) -> Html:
    """The configuration: what is not at its default, and all the rest behind a click."""
    fields = TrainConfig.__dataclass_fields__
    rows: List[List[List[Any]]] = [[], []]
    for name, value in run.config.items():
        field = fields.get(name)
        default = field.default if field else None
        same = field is not None and say(value) == say(default)
        about = field.metadata["help"].replace("%%", "%") if field else ""
        rows[same].append([Cell(option_name(name), None, "code"), Cell(say(value), None, "code"),
                           Cell("" if same else say(default), None, "code"), Cell(about, None, "about")])
    heads = ["option", "value", "default", "what it is"]
    if not run.config:
        return tag("p", "Neither run.json nor result.json says with which options this run was started.")
    return joined([table("Options that are not at their default", heads, rows[0], class_="options"),
                   folded("%d options at their default" % len(rows[1]),
                          table("Options at their default", heads[:2] + heads[3:],
                                [row[:2] + row[3:] for row in rows[1]], class_="options"))])


def facts_table(run: RunData) -> Html:
    """Network, data, machine and versions."""
    pairs = [("folder", run.folder), ("network", run.fact("network")), ("modality", run.fact("modality")),
             ("data set", run.fact("dataset")), ("split", run.fact("split")),
             ("training videos", run.about.get("num_train_videos")), ("test videos", run.result.get("num_videos")),
             ("evaluation", run.result.get("protocol")), ("precision", run.fact("amp_type")),
             ("device", run.fact("device")), ("processes", run.about.get("world_size")),
             ("clips a step", run.about.get("global_batch")), ("steps an epoch", run.about.get("steps_per_epoch")),
             ("steps left out", run.result.get("skipped_steps")), ("started", run.about.get("started")),
             ("torch", run.fact("torch")), ("python", run.about.get("python"))]
    return table("The run", ["what", "value"], [[name, say(value)] for name, value in pairs if value is not None])


def folded(title: Any, *content: Any) -> Html:
    """Content behind a click."""
    return tag("details", tag("summary", title), *content)


def bar(share: float) -> Html:
    """A share, 0 to 1, as a bar; decoration beside its number."""
    return tag("svg", tag("rect", width="%.1f" % (100 * share), height="10"), class_="bar", viewBox="0 0 100 10",
               preserveAspectRatio="none", aria_hidden="true")


def class_row(row: Dict[str, Any]) -> List[Any]:
    """A class in the table."""
    taken = "%s (%d)" % (row["most_often_taken_for"], row["taken_so"]) if row["taken_so"] else "–"
    share = row["top1"] or 0
    return [Cell(row["class"], row["class"]), number(row["top1"], "%.1f"), Cell(bar(share / 100), share, "bars"),
            number(row["top5"], "%.1f"), number(row["num_videos"], "%d"), Cell(taken, row["taken_so"])]


CLASS_HEADS = ["class", "top-1, %", "", "top-5, %", "videos", "most often taken for"]
SHORT = (0, 1, 2, 5)  # columns of the best and the worst


def extremes(caption: str, rows: Sequence[Dict[str, Any]]) -> Html:
    """Some classes, in fewer columns."""
    return table(caption, [CLASS_HEADS[place] for place in SHORT],
                 [[class_row(row)[place] for place in SHORT] for row in rows])


def classes_part(run: RunData) -> Html:
    """Best and worst classes, and all of them."""
    assert run.measured is not None
    rows = sorted((row for row in run.measured["per_class"] if row["num_videos"]), key=lambda row: row["top1"])
    without = len(run.measured["per_class"]) - len(rows)
    note = tag("p", "%d classes have no test video." % without) if without else ""
    every = table("All classes", CLASS_HEADS, map(class_row, rows), True)
    if len(rows) <= FEW:
        return joined([every, note])
    worst, best = rows[:EXTREMES], rows[:-EXTREMES - 1:-1]
    pair = tag("div", extremes("The classes with the lowest accuracy", worst),
               extremes("The classes with the highest accuracy", best), class_="pair")
    return joined([pair, folded("All %d classes" % len(rows), every), note])


def confusions_table(run: RunData) -> Html:
    """The largest numbers off the diagonal of the confusion matrix."""
    assert run.measured is not None
    names, matrix = run.measured["class_names"], run.measured["confusion_matrix"]
    found = [(count, sum(row), names[label], names[answer]) for label, row in enumerate(matrix)
             for answer, count in enumerate(row) if count and answer != label]
    found.sort(key=lambda item: (-item[0], -item[0] / item[1]))
    rows = [[Cell(true, true), Cell(answer, answer), number(count, "%d"), number(100 * count / total, "%.0f")]
            for count, total, true, answer in found[:CONFUSIONS]]
    if not rows:
        return tag("p", "No video was taken for another class.")
    return table("The most frequent confusions", ["class", "taken for", "videos", "of its videos, %"], rows, True)


def scores_remedy(run: RunData) -> Html:
    """What to do for the parts that need scores.npz."""
    weights = os.path.join(run.folder, "model.pth")
    if not os.path.isfile(weights):
        weights = _newest(run.folder)
    words = ("There is no %s in this folder that can be read, so classes, confusion matrix and mistakes are left out. "
             % SCORES_NAME)
    if not weights:
        return tag("p", words + "Training leaves it at its first evaluation.", class_="note")
    command = "python -m tools.evaluate %s --scores %s" % (
        shlex.quote(weights), shlex.quote(os.path.join(run.folder, SCORES_NAME)))
    return tag("p", words, "This makes it: ", tag("code", command), class_="note")


def _newest(folder: str) -> str:
    """The checkpoint written last, '' where there is none."""
    below = os.path.join(folder, "checkpoints")
    try:
        paths = [os.path.join(below, name) for name in os.listdir(below) if name.endswith(".pth")]
        return max(paths, key=os.path.getmtime, default="")
    except OSError:
        return ""


def mistakes_part(run: RunData, mistakes: Sequence[Mistake], films: Sequence[Union[Film, str]]) -> Html:
    """A card for each mistake; its film plays when it is clicked, hovered or focused."""
    assert run.measured is not None
    if not mistakes:
        return tag("p", "No video that could be read was answered wrongly.")
    names = run.measured["class_names"]
    return tag("ul", *[_card(mistake, film, names[mistake.label], names[mistake.answer])
                       for mistake, film in zip(mistakes, films)], class_="films")


def _card(mistake: Mistake, film: Union[Film, str], true: str, answer: str) -> Html:
    """`film` is a film, why there is none, or '' where that is said for all."""
    if isinstance(film, Film):
        picture = tag("button", tag("img", src=film.picture, alt="", draggable="false"), type="button", class_="film",
                      aria_pressed="false", aria_label="Play %s, taken for %s" % (true, answer),
                      data_frames=film.frames, data_width=film.width, data_height=film.height, data_delay=film.delay)
    else:
        picture = tag("p", "No film: ", film, class_="film absent") if film else Html("")
    words = tag("p", tag("b", answer), " %.0f %%" % (100 * mistake.sure), tag("br"), tag("span", "is ", class_="quiet"),
                tag("b", true), " %.0f %%" % (100 * mistake.of_label))
    return tag("li", picture, words, tag("p", mistake.path, class_="path"))


def epochs_table(run: RunData) -> Html:
    """The curves of the evaluations as numbers."""
    columns = [("top-1, %", "epoch.val_top1", 100, "%.2f"), ("top-5, %", "epoch.val_top5", 100, "%.2f"),
               ("test loss", "epoch.val_loss", 1, "%.4f"), ("clips a second", "epoch.fps", 1, "%.1f")]
    series = [run.series.get(column[1]) for column in columns]
    values = [dict(zip(found.x, found.y)) if found else {} for found in series]
    steps = sorted(set().union(*values))[-EPOCHS:]
    if not steps:
        return escaped("")
    rows = [["%d" % step] + [number(column[2] * own[step] if step in own else None, column[3])
                             for column, own in zip(columns, values)] for step in steps]
    return folded("%s: the evaluations as numbers" % run.name,
                  table("Evaluations of " + run.name, ["step"] + [column[0] for column in columns], rows))


def log_part(run: RunData) -> Html:
    """The end of the log, and the videos that could not be read."""
    parts: List[Any] = []
    if run.num_bad:
        title = "Videos that could not be read: %d%s" % (run.num_bad, "" if run.num_bad == len(run.bad_videos) else
                                                   ", the first %d of them" % len(run.bad_videos))
        parts.append(folded(title, table("Videos that could not be read", ["video", "reason"], run.bad_videos)))
    if run.log:
        parts.append(folded("The last %d lines of train.log" % len(run.log),
                            tag("pre", "\n".join(run.log), tabindex="0")))
    return joined(parts)
