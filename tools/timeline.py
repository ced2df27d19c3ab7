"""The picture of a long video's classes over time."""
import io
from typing import Any, List, Sequence

import numpy as np

from tools.outputs import shown, write_whole

SHOWN = 8  # curves
# matplotlib brings no font with Chinese, Japanese and Korean letters: of these, those that are installed lend them.
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
             "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS")
LEAST = 0.05  # probability that a class must reach somewhere to be drawn


def draw_timeline(path: str, title: str, class_names: Sequence[str], windows: Sequence[Any]) -> bool:
    """Draws the probabilities of the most probable classes, and a band of the most probable one, as a PNG; False where
    matplotlib is not installed. `windows` have start and end in seconds, and probabilities (K,).
    """
    try:
        from matplotlib import font_manager, rc_context
    except ImportError:
        return False
    installed = {font.name for font in font_manager.fontManager.ttflist}
    fonts = ["DejaVu Sans"] + [name for name in CJK_FONTS if name in installed]
    with rc_context({"font.family": fonts}):
        write_whole(path, _picture(title, class_names, windows))
    return True


def _picture(title: str, class_names: Sequence[str], windows: Sequence[Any]) -> bytes:
    """The PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    scores = np.stack([window.probabilities for window in windows])  # (windows, K)
    middles = np.array([(window.start + window.end) / 2 for window in windows])
    labels = shown_classes(scores)
    figure = Figure(figsize=(11, 4.6))
    FigureCanvasAgg(figure)
    curves, band = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [6, 1]})
    colours = {label: "C%d" % number for number, label in enumerate(labels)}
    for label in labels:
        curves.plot(middles, 100 * scores[:, label], color=colours[label], linewidth=1.6, marker="o", markersize=3)
    curves.set_ylabel("probability, %")
    curves.set_ylim(0, 103)
    curves.grid(True, alpha=0.3)
    curves.set_title(_plain(title), fontsize=11)
    legend = curves.legend(curves.lines, [str(label) for label in labels], loc="center left",
                           bbox_to_anchor=(1.01, 0.5), fontsize=9, frameon=False)
    for label, text in zip(labels, legend.get_texts()):
        text.set_text(_plain(class_names[label]))  # not before: names that begin with a line are left out of a legend
    for row, (left, right) in zip(scores, extents(windows)):
        best = int(row.argmax())
        band.axvspan(left, right, color=colours.get(best, "0.8"), alpha=0.35 + 0.65 * float(row[best]), linewidth=0)
    band.set_yticks([])
    band.set_ylabel("highest", rotation=0, ha="right", va="center")
    band.set_xlabel("seconds")
    band.set_xlim(windows[0].start, windows[-1].end)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110, bbox_inches="tight")
    return picture.getvalue()


def _plain(name: str) -> str:
    """A name as matplotlib writes it letter by letter: between dollar signs it would see a formula."""
    return shown(name).replace("$", r"\$")


def shown_classes(scores: np.ndarray) -> List[int]:
    """Of scores (windows, K): the classes that are first somewhere, then others by their highest probability."""
    peaks = scores.max(0)
    first = np.bincount(scores.argmax(1), minlength=scores.shape[1]) > 0
    order = np.lexsort((-peaks, ~first))
    return [int(label) for label in order[:SHOWN] if first[label] or peaks[label] >= LEAST]


def extents(windows: Sequence[Any]) -> List[Any]:
    """(from, to) in seconds of each window's part of the band: up to half way to its neighbours."""
    middles = [(window.start + window.end) / 2 for window in windows]
    edges = [windows[0].start] + [(a + b) / 2 for a, b in zip(middles, middles[1:])] + [windows[-1].end]
    return list(zip(edges, edges[1:]))
