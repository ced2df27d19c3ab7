"""`python -m tools.benchmark end-to-end`: training from real files, against the same steps on synthetic clips.

The files go through loader, workers, transforms and prefetching as in a run of train_model.py. A variant's speed may be
limited by its step (`synthetic`) or by the input (`input`: the loader with nobody computing); `of_limit` is the share
of the lower one that is reached.
"""
import argparse
import os
import statistics
import tempfile
from typing import Any, Callable, Dict, List, NamedTuple, Sequence

from data.clip_dataset import ClipBatch, ClipDataset
from data.loaders import ClipLoader, train_loader
from data.transforms import TrainAugmentation
from dataset.progress import usable_cores
from tools import benchmark_films
from tools.benchmark_input import INTERVAL, SEED, SOURCES, Order
from tools.benchmark_step import CLASSES, REFERENCE, Setup, head_line, read_setup, synthetic_batch, trained_variant
from tools.benchmark_step import add_options as add_step_options
from tools.limits import peak_bytes, reset_peak
from tools.timing import markdown, write_json
from train import device as devices
from train.prefetch import Prefetcher
from train.speed import Speed, SpeedMeter

Step = Callable[[ClipBatch], Any]


class Passes(NamedTuple):
    """How long a pass is: steps that are timed, after `skipped` ones in which what workers read ahead is used up."""

    steps: int
    skipped: int


def build_loader(films: Sequence[str], source: str, folder: str, setup: Setup, workers: int,
                 passes: Passes) -> ClipLoader:
    """Training batches from the films, in a source of SOURCES, drawn anew in each pass."""
    videos = SOURCES[source](films, folder)
    sides = setup.crop, setup.crop * 340 // 224                 # TrainAugmentation's own proportion
    dataset = ClipDataset(videos, setup.frames, INTERVAL, TrainAugmentation(setup.crop, sides), SEED, training=True)
    order = Order(len(videos), setup.batch_size * (passes.skipped + passes.steps), setup.batch_size)
    return train_loader(dataset, order, workers, setup.device.type != "cpu")


def one_pass(step: Step, batches: Any, setup: Setup, passes: Passes) -> Speed:
    """A pass through the batches, as an epoch goes; the first `skipped` steps are not timed."""
    meter, source = SpeedMeter(setup.device, setup.batch_size, passes.skipped), Prefetcher(batches, setup.device)
    waited = 0.0
    for number, batch in enumerate(source):
        if not number:
            meter.begin()
        step(batch)
        meter.step(source.waited - waited)
        waited = source.waited
    meter.pause()
    return meter.total()


def measure(steps: Dict[str, Step], peaks: Dict[str, Any], loader: ClipLoader, setup: Setup, passes: Passes,
            rounds: int) -> List[Dict[str, Any]]:
    """A row of each variant: medians over rounds in which everything takes its turn."""
    synthetic = [synthetic_batch(setup, CLASSES)] * (passes.steps + 1)
    once = Passes(passes.steps, 1)
    whole: Dict[str, List[Speed]] = {name: [] for name in steps}
    alone: Dict[str, List[float]] = {name: [] for name in steps}
    read: List[float] = []
    for _ in range(rounds):
        read.append(one_pass(lambda batch: None, loader, setup, passes).clips_per_second)
        for name, step in steps.items():
            whole[name].append(one_pass(step, loader, setup, passes))
            alone[name].append(one_pass(step, synthetic, setup, once).clips_per_second)
    rows = []
    for name, speeds in whole.items():
        rates = [speed.clips_per_second for speed in speeds]
        limits = [min(limit, rate) for limit, rate in zip(alone[name], read)]
        rows.append({
            "variant": name, "clips_per_second": statistics.median(rates),
            "ratio": statistics.median(b / a.clips_per_second for a, b in zip(whole[REFERENCE], rates)),
            "spread": [min(rates), max(rates)], "peak_memory_bytes": peaks[name],
            "data_wait_share": statistics.median(speed.data_wait_share for speed in speeds),
            "synthetic_clips_per_second": statistics.median(alone[name]),
            "of_synthetic": statistics.median(b / a for a, b in zip(alone[name], rates)),
            "input_clips_per_second": statistics.median(read),
            "of_limit": statistics.median(b / a for a, b in zip(limits, rates))})
    return rows


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    cells = [[row["variant"], "%.2f" % row["clips_per_second"], "%.2f to %.2f" % tuple(row["spread"]),
              "%.2f" % row["ratio"], "%.0f %%" % (100 * row["data_wait_share"]),
              "%.2f" % row["synthetic_clips_per_second"], "%.0f %%" % (100 * row["of_synthetic"]),
              "%.2f" % row["input_clips_per_second"], "%.0f %%" % (100 * row["of_limit"])] for row in rows]
    return markdown(["variant", "clips/s", "slowest to fastest", "ratio to reference", "waits for data",
                     "synthetic clips/s", "reached of it", "input alone", "reached of the lower"], cells)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `end-to-end`."""
    add_step_options(parser)
    parser.set_defaults(rounds=3)
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a pass; --rounds is passes [10]")
    parser.add_argument("--source", default="packed", choices=sorted(SOURCES), help="how the clips are kept [packed]")
    parser.add_argument("--workers", type=int, default=-1, help="loader processes (-1: as train_model.py)")
    parser.add_argument("--data", help="a folder with video files of your own; without it films are made")
    parser.add_argument("--films", type=int, default=8, help="how many films to make, or to take from --data [8]")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Measures, prints the table, writes the JSON."""
    setup, variants = read_setup(parser, options)
    if min(options.steps, options.films) < 1:
        parser.error("--steps and --films are 1 or more")
    workers = devices.loader_workers(options.workers, setup.device, usable_cores())
    passes = Passes(options.steps, 2 * workers + 2)
    with tempfile.TemporaryDirectory() as folder:
        try:
            films = benchmark_films.films_for(options.data, options.films, folder)
            loader = build_loader(films, options.source, folder, setup, workers, passes)
        except ValueError as error:
            parser.error(str(error))
        steps, peaks = {}, {}
        for name, variant in variants.items():
            reset_peak(setup.device)
            before = peak_bytes(setup.device)
            steps[name] = trained_variant(setup, variant)
            steps[name](synthetic_batch(setup, CLASSES))
            after = peak_bytes(setup.device)
            peaks[name] = None if before is None or after is None else after - before
        rows = measure(steps, peaks, loader, setup, passes, options.rounds)
        loader.close()
    print("%s from %s, %d worker(s) on %d cores" % (head_line(options.what, setup), options.source, workers,
                                                    os.cpu_count() or 1))
    print(table(rows))
    if options.json:
        write_json(options.json, rows)
    return 0
