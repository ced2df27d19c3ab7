"""What the runs of a study say together: a row for each network, differences in pairs of one seed, the curves."""
import math
import statistics
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from data.modalities import MODALITIES
from network import build_network
from network.flops import count_flops, count_parameters
from tools.study_picture import draw_study
from tools.timing import markdown

Result = Dict[str, Any]  # a run's result.json, with seed, folder and processor_seconds
COVERAGE = 0.95


def within(bound: float, freedom: int) -> float:
    """The probability that Student's t with `freedom` degrees lies within ±bound (Abramowitz and Stegun 26.7.3-4)."""
    angle = math.atan(bound / math.sqrt(freedom))
    term, total = (1.0, 1.0) if freedom % 2 == 0 else (math.cos(angle), math.cos(angle) if freedom > 1 else 0.0)
    for step in range(2 + freedom % 2, freedom, 2):
        term *= math.cos(angle) ** 2 * (step - 1) / step
        total += term
    if freedom % 2 == 0:
        return math.sin(angle) * total
    return 2 / math.pi * (angle + math.sin(angle) * total)


def t_bound(freedom: int) -> float:
    """The bound within which Student's t lies with the probability COVERAGE."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle, freedom) < COVERAGE else (low, middle)
    return high


def spread(values: Sequence[float]) -> float:
    """Standard deviation over the seeds; no number for a single one."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def pairs(results: Sequence[Result], first: str, second: str) -> List[Tuple[float, float]]:
    """Top-1 of both networks for each seed that both have finished."""
    scores = {(row["network"], row["seed"]): row["accuracy_top1"] for row in results}
    seeds = sorted({seed for _, seed in scores})
    return [(scores[first, seed], scores[second, seed]) for seed in seeds
            if (first, seed) in scores and (second, seed) in scores]


def difference(results: Sequence[Result], first: str, second: str) -> Dict[str, Any]:
    """Top-1 of `second` less that of `first`, in points: its mean over the seeds, and the interval that covers it."""
    apart = [b - a for a, b in pairs(results, first, second)]
    row: Dict[str, Any] = {"network": second, "less": first, "pairs": len(apart), "points": apart}
    if apart:
        row["mean"] = statistics.mean(apart)
    if len(apart) > 1:
        half = t_bound(len(apart) - 1) * spread(apart) / math.sqrt(len(apart))
        row["interval"] = [row["mean"] - half, row["mean"] + half]
    return row


def network_row(results: Sequence[Result]) -> Dict[str, Any]:
    """What the runs of one network say, and what it costs."""
    config, name = results[0]["config"], results[0]["network"]
    channels, frames, side = MODALITIES[config["modality"]].channels, config["clip_length"], config["crop_size"]
    network = build_network(name, len(results[0]["class_names"]), channels=channels)
    scores = [row["accuracy_top1"] for row in results]
    return {"network": name, "parameters": count_parameters(network),
            "multiply_adds": count_flops(network, (channels, frames, side, side)),
            "seeds": [row["seed"] for row in results], "top1": scores,
            "mean": statistics.mean(scores), "spread": spread(scores) if len(scores) > 1 else None,
            "processor_seconds": statistics.mean(row["processor_seconds"] for row in results)}


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """The networks, a row each."""
    return markdown(["network", "parameters, million", "multiply-adds a clip, billion", "top-1 by seed, %",
                     "mean ± standard deviation", "processor seconds a run"], [
        [row["network"], "%.2f" % (row["parameters"] / 1e6), "%.3f" % (row["multiply_adds"] / 1e9),
         ", ".join("%d: %.2f" % pair for pair in zip(row["seeds"], row["top1"])),
         "%.2f" % row["mean"] + ("" if row["spread"] is None else " ± %.2f" % row["spread"]),
         "%.0f" % row["processor_seconds"]] for row in rows])


def sentence(row: Dict[str, Any]) -> str:
    """A difference in words."""
    text = "%s less %s: " % (row["network"], row["less"])
    if not row["pairs"]:
        return text + "no seed is finished of both"
    text += "%+.2f points over %d seed%s" % (row["mean"], row["pairs"], "" if row["pairs"] == 1 else "s")
    if "interval" not in row:
        return text + "; an interval takes two seeds"
    text += ", 95 %% interval %+.2f to %+.2f (Student's t on the pairs)" % tuple(row["interval"])
    return text + (": no difference is shown" if row["interval"][0] <= 0 <= row["interval"][1] else "")


def report(results: Sequence[Result], folder: str) -> Dict[str, Any]:
    """Prints the table and the differences, draws the curves; what study.json holds."""
    names = list(dict.fromkeys(row["network"] for row in results))
    rows = [network_row([row for row in results if row["network"] == name]) for name in names]
    apart = [difference(results, names[0], name) for name in names[1:]]
    first = results[0]
    print("\n%s, %d classes, %d test videos, %d epochs, %s; %s, torch %s\n" % (
        first["dataset"], len(first["class_names"]), first["num_videos"], first["epochs"], first["protocol"],
        first["device"], ", ".join(sorted({row["torch"] for row in results}))))
    print(table(rows))
    print("".join("\n" + sentence(row) for row in apart))
    picture = Path(folder) / "study.png"
    if draw_study(results, names, str(picture)):
        print("\ncurves: %s" % picture)
    runs = [{key: row[key] for key in ("network", "seed", "accuracy_top1", "loss", "epochs", "steps", "seconds",
                                       "processor_seconds", "torch", "device", "num_videos")} for row in results]
    return {"networks": rows, "differences": apart, "runs": runs, "config": first["config"]}
