"""The training-curve picture, renewed each epoch from metrics.jsonl."""

from pathlib import Path
from typing import Any, Dict, List, Tuple

from train.log import LOGGER, read_metrics


def _series(rows: Dict[int, Dict[str, Any]], name: str) -> Tuple[List[int], List[float]]:
    """Steps and values of a number, in the order of the steps."""
    steps = [step for step in sorted(rows) if rows[step].get(name) is not None]
    return steps, [rows[step][name] for step in steps]


def draw_curves(metrics: Path, picture: Path, title: str) -> bool:
    """Draws loss, accuracy, learning rate and speed over the steps into a PNG. Returns whether there was anything to
    draw with.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        LOGGER.info("matplotlib is not installed: no picture of the training curves")
        return False
    rows: Dict[str, Dict[int, Dict[str, Any]]] = {"train": {}, "epoch": {}}
    for row in read_metrics(metrics):
        rows.setdefault(row["kind"], {})[row["step"]] = row
    figure = Figure(figsize=(11, 7))
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = (
        ("loss, mean of a clip", "", (("train", "loss", "training"), ("epoch", "val_loss", "test"))),
        (
            "accuracy on the test videos",
            "%",
            (
                ("epoch", "val_top1", "top-1"),
                ("epoch", "val_top5", "top-5"),
                ("train", "top1", "training clips, top-1"),
            ),
        ),
        ("learning rate", "", (("train", "lr", ""),)),
        ("clips a second", "", (("train", "fps", ""),)),
    )
    for i, (name, unit, curves) in enumerate(panels):
        axes = figure.add_subplot(2, 2, i + 1)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=9)
        axes.grid(True, alpha=0.3)
        for kind, key, label in curves:
            steps, values = _series(rows[kind], key)
            scale = 100.0 if unit == "%" else 1.0
            axes.plot(
                steps,
                [v * scale for v in values],
                marker="o" if kind == "epoch" else "",
                markersize=3,
                linewidth=1.2,
                label=label or None,
            )
        if unit == "%":
            axes.set_ylim(0, 100)
            axes.set_ylabel("%", fontsize=9)
        else:
            axes.set_ylim(bottom=0)
        if any(label for _, _, label in curves):
            axes.legend(fontsize=8)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(str(picture), dpi=110)
    return True
