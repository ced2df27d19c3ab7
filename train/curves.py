"""The training-curve picture, renewed each epoch from metrics.jsonl."""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Tuple

from train.log import LOGGER, read_metrics

Rows = Dict[str, Dict[int, Dict[str, Any]]]  # kind -> step -> row


class Curve(NamedTuple):
    """One line: a number of the rows of a kind, and its name in the legend."""

    kind: str
    key: str
    label: str = ""


PANELS: Tuple[Tuple[str, float, Tuple[Curve, ...]], ...] = (  # title, factor, curves
    ("loss, mean of a clip", 1.0, (Curve("train", "loss", "training"), Curve("epoch", "val_loss", "test"))),
    ("accuracy, %", 100.0, (Curve("epoch", "val_top1", "test, top-1"), Curve("epoch", "val_top5", "test, top-5"),
                            Curve("train", "top1", "training, top-1"))),
    ("learning rate", 1.0, (Curve("train", "lr"),)),
    ("clips a second", 1.0, (Curve("train", "fps"),)),
)


def _series(rows: Rows, curve: Curve) -> Tuple[List[int], List[float]]:
    """Steps and values of a curve, in the order of the steps."""
    found = rows.get(curve.kind, {})
    steps = [step for step in sorted(found) if found[step].get(curve.key) is not None]
    return steps, [found[step][curve.key] for step in steps]


def _draw_panel(axes: Any, rows: Rows, title: str, factor: float, curves: Tuple[Curve, ...]) -> None:
    highest = 0.0
    for curve in curves:
        steps, values = _series(rows, curve)
        values = [factor * value for value in values]
        highest = max([highest] + values)
        axes.plot(steps, values, marker="o" if curve.kind == "epoch" else ".", markersize=4, linewidth=1.2,
                  label=curve.label or None)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("step", fontsize=9)
    axes.grid(True, alpha=0.3)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.08 * highest or 1.0)
    if curves[0].label:
        axes.legend(fontsize=8)


def draw_curves(metrics: Path, picture: Path, title: str) -> bool:
    """Draws loss, accuracy, rate and speed over the steps into a PNG; False where matplotlib is not installed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        LOGGER.info("matplotlib is not installed: no picture of the training curves")
        return False
    rows: Rows = {}
    for row in read_metrics(metrics):
        rows.setdefault(row["kind"], {})[row["step"]] = row
    figure = Figure(figsize=(11, 7))
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for place, (name, factor, curves) in enumerate(PANELS, 1):
        _draw_panel(figure.add_subplot(2, 2, place), rows, name, factor, curves)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(str(picture), dpi=110)
    return True
