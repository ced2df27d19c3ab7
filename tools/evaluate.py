"""Evaluates what was trained on the test videos of a data set.

    python -m tools.evaluate exps/motion10_resnet50_3d_gcn_x5/model.pth --json evaluation.json
    python -m tools.evaluate CHECKPOINT --dataset UCF101 --views 10x3 --scores rgb.npz
    python -m tools.evaluate --fuse rgb.npz flow.npz --weights 1,1.5
    torchrun --nproc_per_node 8 -m tools.evaluate CHECKPOINT --dataset UCF101

Every test video counts once, on any number of processes; one that cannot be read is named and counts as an error.
Without --views the number is the one that training reports. Accuracies are in percent, as in result.json.
"""
import argparse
import contextlib
import math
import sys
import time
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import torch

from data.bad_videos import named as named_failures
from dataset.layouts import some_of
from dataset.lists import class_key
from dataset.options import CommandParser
from dataset.specs import DATASETS, SOURCES, DatasetSpec, VideoSet, find_dataset, load_videos, published_names
from tools.outputs import check_writable, shown
from tools.running import (
    Machine,
    Runner,
    Views,
    add_running_options,
    command_code,
    start_machine,
    views_of,
    with_end,
)
from tools.scores import Scored, fuse, measure, read_scores, write_confusion, write_scores
from tools.timing import markdown, write_json
from tools.trained import Trained, add_checkpoint_options, geometry_typed, open_trained
from train import device as devices
from train.evaluate import PROTOCOL
from train.log import LOGGER, start_logging
from train.video_scores import VideoScores, VideoTable
from train.whereabouts import HERE

PUBLISHED = 92.39  # top-1 in percent, UCF-101, split 1
OF_FUSION = ("fuse", "weights", "json", "scores", "confusion", "device", "workers", "dist_timeout")  # what --fuse takes
SHOWN = 25  # classes in the printed table; of more, those with the lowest accuracy


class Data(NamedTuple):
    """The test videos, and what they are of."""

    spec: DatasetSpec
    split: int
    videos: VideoSet


def build_parser() -> CommandParser:
    """The command's options."""
    parser = CommandParser("tools.evaluate", __doc__)
    parser.add_argument("checkpoint", nargs="?", metavar="CHECKPOINT", help="a run's model.pth or checkpoint, one of "
                        "the reference, or published weights")
    group = parser.add_argument_group("the data")
    group.add_argument("--dataset", metavar="NAME", help="%s [as trained]" % ", ".join(DATASETS))
    group.add_argument("--data-root", metavar="DIR", help="its folder [as trained, else dataset/NAME/raw]")
    group.add_argument("--split", type=int, metavar="N", help="which official split [as trained, else 1]")
    group.add_argument("--source", choices=SOURCES, help="[as trained, else auto]")
    add_checkpoint_options(parser)
    add_running_options(parser)
    group = parser.add_argument_group("the outcome")
    group.add_argument("--protocol", choices=("views", "reference"), default="views", help="reference: one centre clip "
                       "a video, and whether the number may stand beside the published one [views: as --views says]")
    group.add_argument("--json", metavar="FILE", help="all figures, the table by class, the confusion matrix; - is "
                       "standard output")
    group.add_argument("--scores", metavar="FILE.npz", help="the probabilities of each video, for --fuse")
    group.add_argument("--confusion", metavar="FILE", help="the confusion matrix alone, as .npz or else CSV")
    group = parser.add_argument_group("late fusion, in place of a checkpoint")
    group.add_argument("--fuse", nargs="+", metavar="FILE.npz", help="scores of the same test videos, such as of RGB "
                       "and of flow; joined by path")
    group.add_argument("--weights", metavar="A,B,...", help="how much each of them counts [1,1]")
    return parser


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """The command line."""
    return build_parser().read(argv)


def check_options(options: argparse.Namespace) -> None:
    """What can be found wrong before anything is opened: ValueError or OSError that names the option."""
    if not options.checkpoint and not options.fuse:
        raise ValueError("give a CHECKPOINT to evaluate, or --fuse with scores files")
    unheeded = [name for name, value in vars(options).items()
                if name not in OF_FUSION and value != build_parser().get_default(name)]
    if options.fuse and unheeded:
        word = "a CHECKPOINT" if unheeded[0] == "checkpoint" else "--" + unheeded[0].replace("_", "-")
        raise ValueError("--fuse takes scores files alone, and %s says how videos are scored: one of the two" % word)
    if options.weights and not options.fuse:
        raise ValueError("--weights %s: is of --fuse" % options.weights)
    if options.protocol == "reference" and views_of(options) != Views():
        raise ValueError("--protocol reference is one centre clip a video: drop --views and --flips")
    if options.dataset:
        find_dataset(options.dataset)
    for name in ("json", "scores", "confusion"):
        check_writable(name, getattr(options, name))


def find_data(options: argparse.Namespace, trained: Trained) -> Data:
    """The test videos, as typed, else those of the training. ValueError where their classes are not the network's."""
    config = trained.config
    name = options.dataset or config.get("dataset")
    if not name:
        raise ValueError("--dataset: %s does not say on which data it was trained; give one of %s"
                         % (trained.path, ", ".join(DATASETS)))
    spec = find_dataset(name)
    same = config if spec.name == config.get("dataset") else {}
    split = (same.get("split") or 1) if options.split is None else options.split
    check_classes(spec, published_names(spec) or trained.class_names, trained)
    videos = load_videos(spec, options.data_root or same.get("data_root"), split,
                         options.source or same.get("source") or "auto", trained.modality)
    check_classes(spec, videos.class_names, trained)
    return Data(spec, split, videos)


def check_classes(spec: DatasetSpec, names: Optional[Sequence[str]], trained: Trained) -> None:
    """ValueError unless the data set's classes, where they are known, are the network's."""
    if names is not None and len(names) != trained.num_classes:
        raise ValueError("--dataset %s has %d classes, %s was trained for %d: take the data set that belongs to it"
                         % (spec.name, len(names), trained.path, trained.num_classes))
    for here, there in zip(names or (), trained.class_names or names or ()):
        if class_key(here) != class_key(there):
            raise ValueError("--dataset %s: its class %s is %s in %s; take the data set that it was trained on, or say "
                             "by --classes what its classes are" % (spec.name, here, there, trained.path))


def protocol_of(views: Views, reference: bool) -> str:
    """How a number came about, in words."""
    if views == Views():
        return ("reference: " if reference else "") + PROTOCOL
    clips = "%d clips spread evenly over a video" % views.clips if views.clips > 1 else "one centre clip a video"
    crops = "%d crops along the longer side" % views.crops if views.crops > 1 else "centre crop"
    return "%s: %s, short side resized, %s%s, mean of the probabilities" % (
        views, clips, crops, ", each mirrored too" if views.flips else "")


def differences_from_published(trained: Trained, data: Data) -> List[str]:
    """What keeps a number of the reference's protocol from standing beside the published 92.39 %."""
    shape = trained.geometry
    facts = [("data set", data.spec.name, "UCF101"), ("split", data.split, 1),
             ("network", trained.name, "RESNET50_3D_GCN_X5"), ("modality", trained.modality, "rgb"),
             ("frames of a clip", shape.clip_length, 8), ("frame interval", shape.val_interval, 8),
             ("crop", shape.crop, 224), ("short side", shape.eval_short_side, 256),
             ("test videos", len(data.videos.test), 3783)]
    return ["%s is %s, not %s" % fact for fact in facts if fact[1] != fact[2]]


def score_videos(runner: Runner, data: Data, views: Views) -> Any:
    """(VideoTable of all test videos, Scores of the clips), on every process."""
    machine, videos = runner.machine, data.videos.test
    collected = VideoScores(len(videos), runner.trained.num_classes, views.clips * views.windows, machine.ranks)
    batches = runner.loader(videos, views)
    try:
        shown = with_end(batches, len(batches), "steps") if machine.ranks.rank == 0 else batches
        clips = runner.evaluate(shown, views, collected.add)
    finally:
        batches.close()
    return collected.table(machine.device), clips


def evaluate(options: argparse.Namespace, machine: Machine) -> Dict[str, Any]:
    """Evaluates the checkpoint; the report, on every process. Rank 0 writes --scores."""
    HERE.at("starting: opening the checkpoint and the lists")
    began, views = time.time(), views_of(options)
    spec = find_dataset(options.dataset) if options.dataset else None
    trained = open_trained(options.checkpoint, machine.device, options.network, options.classes,
                           geometry_typed(options), spec.defaults if spec else None)
    data = find_data(options, trained)
    runner = Runner(trained, machine)
    protocol = protocol_of(views, options.protocol == "reference")
    for line in trained.notes + data.videos.notes + [
            "%s: %d test videos of %d classes" % (data.spec.name, len(data.videos.test), trained.num_classes),
            runner.description, "protocol: " + protocol]:
        LOGGER.info("%s", line)
    table, clips = score_videos(runner, data, views)
    videos = scored(table, data)
    report = dict(measure(videos), protocol=protocol, views=str(views), clip_top1=100 * clips.top1,
                  clip_top5=100 * clips.top5, clip_loss=clips.loss if math.isfinite(clips.loss) else None,
                  num_clips=clips.total,
                  unreadable=[{"path": data.videos.test.path(row), "reason": reason}
                              for row, reason in enumerate(table.reasons) if not table.readable[row]],
                  dataset=data.spec.name, split=data.split, checkpoint=trained.path, network=trained.name,
                  modality=trained.modality, amp_type=runner.precision.label, world_size=machine.ranks.world_size,
                  device=devices.device_name(machine.device), torch=str(torch.__version__),
                  seconds=time.time() - began)
    if options.protocol == "reference":
        report["differences_from_published"] = differences_from_published(trained, data)
    if options.scores and machine.ranks.rank == 0:
        write_scores(options.scores, videos)
    return report


def scored(table: VideoTable, data: Data) -> Scored:
    """The table with paths and labels."""
    videos = data.videos.test
    return Scored([videos.relative(row) for row in range(len(videos))], videos.labels.astype("int64"),
                  table.scores.numpy(), table.best.numpy(), table.readable.numpy(), data.videos.class_names)


def parse_weights(text: Optional[str], count: int) -> List[float]:
    """`1,1.5` -> two numbers; ones where nothing was typed. ValueError for anything that is no weight each."""
    try:
        weights = [float(word) for word in text.split(",")] if text else [1.0] * count
    except ValueError:
        weights = []
    fit = len(weights) == count and all(0 <= weight < float("inf") for weight in weights)
    if not fit or not any(weights):
        raise ValueError("--weights %s: takes %d numbers with commas between, 0 or more, not all 0" % (text, count))
    return weights


def late_fusion(options: argparse.Namespace, writes: bool) -> Dict[str, Any]:
    """Fuses scores files; the report. `writes`: --scores too, as one of several processes does."""
    weights = parse_weights(options.weights, len(options.fuse))
    files = [(path, read_scores(path)) for path in options.fuse]
    mixed, missing = fuse(files, weights)
    for path, videos in files:
        LOGGER.info("%s: top-1 %.2f %% on its %d videos", path, measure(videos)["top1"], len(videos.paths))
        if missing[path]:
            LOGGER.warning("%s lacks %d videos that others have, which are left out: %s", path, len(missing[path]),
                           some_of(missing[path]))
    protocol = "late fusion of %s by the weights %s, on the %d videos that all of them hold" % (
        ", ".join(options.fuse), ", ".join("%g" % weight for weight in weights), len(mixed.paths))
    LOGGER.info("protocol: %s", protocol)
    if options.scores and writes:
        write_scores(options.scores, mixed)
    return dict(measure(mixed), protocol=protocol, fused=list(options.fuse), weights=weights, missing=missing)


def lines_of(report: Dict[str, Any]) -> List[str]:
    """The report in words, a table by class among them."""
    rows = [row for row in report["per_class"] if row["num_videos"]]
    hidden = len(rows) > SHOWN
    if hidden:
        rows = sorted(rows, key=lambda row: row["top1"])[:SHOWN]
    cells = [[shown(row["class"]), "%d" % row["num_videos"], "%.2f" % row["top1"], "%.2f" % row["top5"],
              "%s (%d)" % (shown(row["most_often_taken_for"]), row["taken_so"]) if row["taken_so"] else "-"]
             for row in rows]
    lines = [markdown(["class", "videos", "top-1, %", "top-5, %", "most often taken for"], cells)]
    lines += ["the %d classes with the lowest accuracy of %d; --json has all" % (SHOWN, len(report["per_class"]))
              ] if hidden else []
    if report.get("unreadable"):
        lines.append("cannot be read, each counts as an error:\n" + named_failures(
            [(shown(item["path"]), shown(item["reason"])) for item in report["unreadable"]]))
    if report.get("num_clips", 0) > report["num_videos"]:
        lines.append("clips:  top-1 %.2f %%  top-5 %.2f %%  on %d windows" % (
            report["clip_top1"], report["clip_top5"], report["num_clips"]))
    lines.append("videos: top-1 %.2f %%  top-5 %.2f %%  mean of the classes %.2f %%  calibration error %.4f  on %d" % (
        report["top1"], report["top5"], report["mean_class_accuracy"],
        report["calibration"]["expected_calibration_error"], report["num_videos"]))
    lines.append("protocol: " + report["protocol"])
    if "differences_from_published" in report:
        apart = report["differences_from_published"]
        lines.append("comparable with the published %.2f %%" % PUBLISHED if not apart else
                     "not comparable with the published %.2f %%: %s" % (PUBLISHED, "; ".join(apart)))
    return lines


def run(options: argparse.Namespace) -> int:
    """Evaluates or fuses, prints, writes; the exit code."""
    check_options(options)
    machine = start_machine(options)
    first = machine.ranks.rank == 0
    with contextlib.redirect_stdout(sys.stderr if options.json == "-" else sys.stdout):
        start_logging(machine.ranks.rank)
        report = late_fusion(options, first) if options.fuse else evaluate(options, machine)
        if first:
            print("\n".join(lines_of(report)), flush=True)
    if options.json and first:
        write_json(options.json, report)
    if options.confusion and first:
        write_confusion(options.confusion, report["confusion_matrix"], report["class_names"])
    return 0


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; exit code 2 for what the user can mend, 130 for Ctrl-C."""
    options = parse(argv)
    return command_code(lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
