"""The picture of a study: accuracy over the epochs, a thin line for each run, a thick one for each network's mean."""
import os
import statistics
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from train.log import read_metrics

Panel = Tuple[str, str, str, float]  # title, kind and key of metrics.jsonl's rows, factor
PANELS: Tuple[Panel, ...] = (("test top-1, %", "epoch", "val_top1", 100.0),
                             ("training loss", "train", "loss", 1.0))


def curve(folder: str, kind: str, key: str) -> Dict[int, float]:
    """Step -> value of a run, where a resumed run repeats steps the later ones."""
    rows = (row for row in read_metrics(Path(folder) / "metrics.jsonl") if row["kind"] == kind)
    return {row["step"]: row[key] for row in rows if row.get(key) is not None}


def mean_curve(curves: Sequence[Dict[int, float]]) -> Tuple[List[int], List[float]]:
    """Steps that all runs have, and the mean there."""
    steps = sorted(set.intersection(*(set(one) for one in curves)))
    return steps, [statistics.mean(one[step] for one in curves) for step in steps]


def draw_study(results: Sequence[Dict[str, Any]], names: Sequence[str], path: str) -> bool:
    """Draws test accuracy and training loss of all runs as a PNG; False where matplotlib is not installed.

    `results` have network and folder.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(10, 4))
    FigureCanvasAgg(figure)
    for axes, (title, kind, key, factor) in zip(figure.subplots(1, len(PANELS)), PANELS):
        for number, name in enumerate(names):
            colour = "C%d" % number
            curves = [{step: factor * value for step, value in curve(row["folder"], kind, key).items()}
                      for row in results if row["network"] == name]
            for one in curves:
                axes.plot(sorted(one), [one[step] for step in sorted(one)], color=colour, linewidth=0.8, alpha=0.45)
            steps, means = mean_curve(curves)
            axes.plot(steps, means, color=colour, linewidth=2.2, marker="o", markersize=3,
                      label="%s, mean of %d" % (name, len(curves)))
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("step")
        axes.grid(True, alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    temporary = path + ".tmp.png"
    figure.savefig(temporary, dpi=100)
    os.replace(temporary, path)
    return True
