"""The picture of a GloRe unit at work on one clip: what its top nodes gather, and what they tell each other.

K node that is shown, T frame of the clip, T' time of a map, H, W.
"""
import io
import math
import textwrap
from typing import Any, List, NamedTuple, Sequence

import cv2
import numpy as np

from tools.graph_overlay import BLUE, RED, Lens, as_picture, coloured, pixels_of, stride_between
from tools.graph_sight import Sight, among, arriving, changed, given_back, variation
from tools.timeline import all_letters, plain

DPI = 110
TILE, GAP = 132, 7  # pixels, as all lengths here
PITCH = TILE + GAP
BAR = 13  # the colours of a row
LEFT, NUMBERS, PANEL = 190, 100, 400  # words beside a row, numbers beside its colours, matrix or arrows
TOP, FOOT = 100, 170  # title, explanation
TIMES = 6  # columns at most
LEAST_ARROW = 0.25  # of the strongest: weaker ones are not drawn
HOW_TO_READ = (
    "A GloRe unit gathers the clip's positions into a few nodes, lets the nodes tell each other what they hold, and "
    "gives each node back to the positions it was gathered from.",
    "Maps: the weights of one node over rows, columns and time. Red positions are added up into the node, blue ones "
    "subtracted, grey ones left out; by the same weights the node is given back. Each node has its own scale.",
    "Matrix: learned, the same for every clip; the row's node takes this much of the column's, beside its own state "
    "as it is. Arrows: |weight| x size of the teller's state in this clip, red adds, blue subtracts; none below a "
    "quarter of the largest.",
    "Beside the maps: what the node gives back (size of its map times size of its answer) in that of the first; which "
    "part of the map is not the same everywhere; the size of what it is told in that of its own state.")


class Scene(NamedTuple):
    """The clip that a picture is of."""

    title: str
    clip: np.ndarray  # (T, H, W, C) uint8, as the network sees it
    seconds: Sequence[float]  # (T,) of its frames


def draw_picture(scene: Scene, sight: Sight, nodes: Sequence[int]) -> bytes:
    """A PNG; empty where matplotlib is not installed."""
    try:
        letters = all_letters()
    except ImportError:
        return b""
    with letters:
        return _picture(scene, sight, nodes)


def _picture(scene: Scene, sight: Sight, nodes: Sequence[int]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    times = shown_times(sight.maps.shape[1])
    right = LEFT + len(times) * PITCH + BAR + NUMBERS
    across, down = right + PANEL, max((len(nodes) + 1) * PITCH, 2 * PANEL - 20) + TOP + FOOT
    figure = Figure(figsize=(across / DPI, down / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    _text(figure, 14, 32, plain(scene.title), fontsize=12, weight="bold")
    _text(figure, 14, 60, summary(sight, nodes), fontsize=9)
    _draw_maps(figure, scene, sight, nodes, times)
    _draw_matrix(_axes(figure, right + 30, TOP + 10, PANEL - 60, PANEL - 85), sight, nodes)
    _draw_arrows(_axes(figure, right + 20, TOP + PANEL, PANEL - 40, PANEL - 40), sight, nodes)
    words = "\n".join("\n".join(textwrap.wrap(text, across // 7)) for text in HOW_TO_READ)
    _text(figure, 14, down - FOOT + 6, words, va="top", linespacing=1.35, color="0.25")
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()


def summary(sight: Sight, nodes: Sequence[int]) -> str:
    """A line on the whole unit."""
    if not sight.adds:
        return "this unit adds nothing to the features, as in a fresh network: its blocker's weights are zero"
    return ("of %d nodes the %d that give back most; what the unit adds has %.3g %% of the size of the features; the "
            "nodes shown are told %.0f %% by one another, the rest by others" % (
                len(sight.maps), len(nodes), 100 * sight.adds, 100 * among(sight, nodes)))


def shown_times(count: int) -> List[int]:
    """Of a map's times those that have a column: evenly spread, the first and the last among them."""
    return sorted({int(round(place)) for place in np.linspace(0, count - 1, min(count, TIMES))})


def _axes(figure: Any, left: float, top: float, width: float, height: float) -> Any:
    """Axes at a place in pixels from the picture's left and top edge."""
    across, down = figure.get_size_inches() * figure.dpi
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _draw_maps(figure: Any, scene: Scene, sight: Sight, nodes: Sequence[int], times: Sequence[int]) -> None:
    """The clip's frames in a row, under them a row for each node; the colours and what they stand for on the right."""
    frames, crop = scene.clip.shape[:2]
    stride = stride_between(frames, sight.maps.shape[1])
    pixels = pixels_of(TILE, crop)
    lens = Lens(sight.maps.shape[2:], crop, pixels, pixels)
    pictures = [cv2.resize(as_picture(scene.clip[time * stride]), (TILE, TILE), interpolation=cv2.INTER_CUBIC)
                for time in times]
    back, varies, change = given_back(sight), variation(sight), changed(sight)
    first = ("clip", "%d frames of" % frames, "%d x %d pixels" % (crop, crop),
             "maps: %d x %d x %d" % sight.maps.shape[1:])
    rows, words = [_beside(pictures, np.full((TILE, BAR, 3), 255, np.uint8))], [first]
    for node in nodes:
        full = float(np.abs(sight.maps[node]).max()) or 1.0
        tiles = [coloured(picture, lens.read(sight.maps[node, time]) / full) for time, picture in zip(times, pictures)]
        rows.append(_beside(tiles, _colour_bar()))
        words.append(("node %d" % node, "gives back %.0f %%" % (100 * back[node] / (back[nodes[0]] or 1)),
                      "map varies %.0f %%" % (100 * varies[node]), "relations add %.0f %%" % (100 * change[node])))
        _numbers(figure, len(rows) - 1, LEFT + rows[0].shape[1] + 4, full)
    axes = _axes(figure, LEFT, TOP, rows[0].shape[1], len(rows) * PITCH)
    axes.imshow(np.concatenate(rows), interpolation="nearest", aspect="auto")
    axes.set_axis_off()
    for column, time in enumerate(times):
        _text(figure, LEFT + column * PITCH + TILE / 2, TOP - 9, "%.2f s" % scene.seconds[time * stride], ha="center")
    for row, lines in enumerate(words):
        for number, line in enumerate(lines):
            _text(figure, LEFT - 10, TOP + row * PITCH + 20 + 22 * number, line, ha="right",
                  fontsize=8 if number else 10, weight="normal" if number else "bold")


def _beside(tiles: Sequence[np.ndarray], bar: np.ndarray) -> np.ndarray:
    """A row of tiles and its colours, with white between and below: (PITCH, W, 3)."""
    row = np.concatenate([np.pad(tile, ((0, 0), (0, GAP), (0, 0)), constant_values=255) for tile in tiles] + [bar], 1)
    return np.pad(row, ((0, GAP), (0, 0), (0, 0)), constant_values=255)


def _colour_bar() -> np.ndarray:
    """The colours from the largest weight to its opposite, over a middle grey: (TILE, BAR, 3)."""
    return coloured(np.full((TILE, BAR, 3), 150, np.uint8), np.repeat(np.linspace(1, -1, TILE)[:, None], BAR, 1))


def _numbers(figure: Any, row: int, left: float, full: float) -> None:
    """The weights beside a row's colours."""
    for share in (1, 0, -1):
        place = TOP + row * PITCH + TILE / 2 - share * (TILE / 2 - 6)
        _text(figure, left, place, "%+.2g" % (share * full) if share else "0", fontsize=7)


def _text(figure: Any, left: float, top: float, text: str, **style: Any) -> None:
    """Words at a place in pixels from the picture's left and top edge."""
    across, down = figure.get_size_inches() * figure.dpi
    figure.text(left / across, 1 - top / down, text, **{"fontsize": 8, "va": "center", **style})


def _draw_matrix(axes: Any, sight: Sight, nodes: Sequence[int]) -> None:
    """The learned weights among the nodes."""
    weights = sight.relations[np.ix_(list(nodes), list(nodes))]  # (K, K)
    full = float(np.abs(weights).max()) or 1.0
    axes.imshow(coloured(np.full(weights.shape + (3,), 255, np.uint8), weights / full), interpolation="nearest")
    names = ["%d" % node for node in nodes]
    axes.set_xticks(range(len(nodes)))
    axes.set_yticks(range(len(nodes)))
    axes.set_xticklabels(names, fontsize=8)
    axes.set_yticklabels(names, fontsize=8)
    axes.set_xlabel("tells", fontsize=9)
    axes.set_ylabel("hears", fontsize=9)
    axes.set_title("Relations: learned weights", fontsize=10, pad=6)
    axes.tick_params(length=0)
    size = 8 if len(nodes) <= 6 else 5.5
    for row, values in enumerate(weights):
        for column, value in enumerate(values):
            axes.text(column, row, "%+.2f" % value, ha="center", va="center", fontsize=size,
                      color="white" if abs(value) > 0.75 * full else "black")


def _draw_arrows(axes: Any, sight: Sight, nodes: Sequence[int]) -> None:
    """What arrives at each node from the others in this clip, as arrows between nodes on a circle."""
    axes.set_axis_off()
    axes.set_xlim(-1.45, 1.45)
    axes.set_ylim(-1.45, 1.45)
    axes.set_title("What they tell each other in this clip", fontsize=10, pad=0)
    turns = [math.pi / 2 - 2 * math.pi * number / len(nodes) for number in range(len(nodes))]
    places = [(math.cos(turn), math.sin(turn)) if len(nodes) > 1 else (0.0, 0.0) for turn in turns]
    arrives = arriving(sight)[np.ix_(list(nodes), list(nodes))]  # (K, K)
    np.fill_diagonal(arrives, 0)
    most = float(np.abs(arrives).max()) or 1.0
    for hearer, teller in zip(*np.nonzero(np.abs(arrives) >= LEAST_ARROW * most)):
        share = abs(arrives[hearer, teller]) / most
        colour = [level / 255 for level in (RED if arrives[hearer, teller] > 0 else BLUE)]
        axes.annotate("", places[hearer], places[teller], arrowprops={
            "arrowstyle": "-|>", "color": colour, "linewidth": 0.5 + 3 * share, "alpha": 0.35 + 0.6 * share,
            "shrinkA": 16, "shrinkB": 16, "mutation_scale": 9 + 6 * share, "connectionstyle": "arc3,rad=0.16"})
    for node, place in zip(nodes, places):
        axes.text(*place, "%d" % node, ha="center", va="center", fontsize=9, weight="bold",
                  bbox={"boxstyle": "circle,pad=0.45", "facecolor": "white", "edgecolor": "0.3"})
