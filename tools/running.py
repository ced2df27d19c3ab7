"""What evaluating and predicting have in common: the options of the machine, and clips of videos through a network
exactly as training evaluates them.
"""
import argparse
import os
import re
import sys
import time
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Tuple, TypeVar

import torch

from data.clip_dataset import ClipDataset
from data.device_transforms import DeviceTransform
from data.loaders import ClipLoader, eval_loader, why_readers_died
from data.transforms import EvalTransform
from data.video_list import VideoList
from dataset.progress import (
    INTERRUPTED,
    SAY_EVERY,
    USER_ERROR,
    exit_code,
    say_progress,
    usable_cores,
    with_progress,
)
from network.execution import check_execution, set_execution
from tools.trained import Trained
from train import device as devices
from train import distributed
from train.amp import Precision
from train.amp_choice import build_precision
from train.config import AMP_DTYPES, DEVICES, EXECUTIONS, OPT_LEVELS, TrainConfig, check_dist_timeout
from train.evaluate import each_batch, evaluate
from train.log import stop_logging
from train.metrics import Scores
from train.whereabouts import LOST

T = TypeVar("T")
BATCH_SIZE = 8  # clips, as TrainConfig.eval_batch_size


class Views(NamedTuple):
    """How a video is looked at: clips spread evenly over it, windows of each along the longer side, mirrored or not."""

    clips: int = 1
    crops: int = 1
    flips: bool = False

    @property
    def windows(self) -> int:
        """Of one clip."""
        return self.crops * (2 if self.flips else 1)

    def __str__(self) -> str:
        return "%dx%d%s" % (self.clips, self.crops, " and mirrored" if self.flips else "")


def parse_views(text: str) -> Tuple[int, int]:
    """`10x3` -> (10, 3)."""
    found = re.match(r"(\d+)[x×](\d+)$", text.lower())
    if not found or not 1 <= int(found.group(1)) or not 1 <= int(found.group(2)) <= 16:
        raise argparse.ArgumentTypeError("takes CLIPSxCROPS such as 1x1 or 10x3, each at least 1 (at most 16 crops), "
                                         "not %r" % text)
    return int(found.group(1)), int(found.group(2))


def add_running_options(parser: argparse.ArgumentParser) -> None:
    """Views, and the options of the machine as train_model.py has them."""
    group = parser.add_argument_group("how it is looked at")
    group.add_argument("--views", type=parse_views, default=(1, 1), metavar="CLIPSxCROPS",
                       help="clips a video, spread evenly in time, and square windows of each along its longer side; "
                       "their probabilities are averaged. The field often reports 10x3 [1x1: the middle of both]")
    group.add_argument("--flips", action="store_true", help="each window mirrored as well")
    group = parser.add_argument_group("the machine", "As of train_model.py.")
    group.add_argument("--device", default="auto", type=str.lower, choices=DEVICES, help="[auto]")
    group.add_argument("--batch-size", type=int, default=0, metavar="N",
                       help="clips of a step; lower it where memory is full [as trained, else %d]" % BATCH_SIZE)
    group.add_argument("--workers", type=int, default=-1, metavar="N",
                       help="processes that read videos (-1: by the number of cores; 0: none) [-1]")
    group.add_argument("--amp", action="store_true", help="mixed precision [off: fp32]")
    group.add_argument("--opt-level", type=str.upper, choices=OPT_LEVELS, help="its level; switches it on [O2]")
    group.add_argument("--amp-dtype", type=str.lower, default="auto", choices=AMP_DTYPES, help="half type [auto]")
    group.add_argument("--execution", type=str.lower, default="auto", choices=EXECUTIONS,
                       help="how the network computes [auto]")
    group.add_argument("--dist-timeout", type=float, default=TrainConfig.dist_timeout, metavar="SECONDS",
                       help="of several processes, how long one waits for the others before it ends [%(default)g]")


def views_of(options: argparse.Namespace) -> Views:
    """The views that were typed."""
    clips, crops = options.views
    return Views(clips, crops, options.flips)


def with_end(results: Iterable[T], total: int, what: str) -> Iterator[T]:
    """The results with words on how far they are, none about a short work but on a terminal, whose line they leave when
    they end.
    """
    began = time.monotonic()

    def say(text: str) -> None:
        if sys.stderr.isatty() or time.monotonic() - began >= SAY_EVERY[False]:
            say_progress(text)

    yield from with_progress(results, total, what, say)
    clear_line()


def clear_line() -> None:
    """Makes room for a line of output on a terminal that shows progress."""
    if sys.stderr.isatty():
        say_progress("")


def command_code(run: Callable[[], int]) -> int:
    """Runs a command to its exit code: 0 done, 2 something the user can mend, 130 interrupted. Leaves log and group."""
    def whole() -> int:
        try:
            return run()
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return INTERRUPTED
        except RuntimeError as error:
            if distributed.lost_contact(error):
                return LOST
            reason = why_readers_died(error)
            if not reason and not devices.is_out_of_memory(error):
                raise
            print("error: " + (reason or "the device's memory is full: lower --batch-size; %s" % error),
                  file=sys.stderr)
            return USER_ERROR
    try:
        return exit_code(whole)
    finally:
        stop_logging()
        distributed.stop()


class Machine(NamedTuple):
    """Where this process computes, who it is among how many, and with what."""

    device: torch.device
    ranks: distributed.Ranks
    workers: int
    batch_size: int  # 0: as trained
    level: str = "O0"
    amp_dtype: str = "auto"
    execution: str = "auto"


def start_machine(options: argparse.Namespace) -> Machine:
    """The machine that the options describe; several processes, started by torchrun, meet. ValueError names the option.
    """
    if options.batch_size < 0 or options.workers < -1:
        raise ValueError("--batch-size takes 1 or more, --workers 0 or more (-1: by the number of cores)")
    check_execution(options.execution)
    check_dist_timeout(options.dist_timeout)
    ranks = distributed.read_ranks("WORLD_SIZE" in os.environ)
    device = devices.choose_device(options.device, ranks.local_rank)
    distributed.start(ranks, devices.BACKEND_OF[device.type], "env://", options.dist_timeout)
    level = options.opt_level or ("O2" if options.amp else "O0")
    if level == "O0" and options.amp_dtype in ("fp16", "bf16"):
        raise ValueError("--amp-dtype %s without --amp: that is fp32; add --amp or drop it" % options.amp_dtype)
    return Machine(device, ranks, devices.loader_workers(options.workers, device, usable_cores()), options.batch_size,
                   level, options.amp_dtype, options.execution)


class Runner:
    """A trained network at work on a machine."""

    def __init__(self, trained: Trained, machine: Machine) -> None:
        self.trained, self.machine = trained, machine
        self.precision: Precision = build_precision(
            machine.level, "native", machine.amp_dtype, devices.half_dtype(machine.device), machine.device)
        execution = set_execution(trained.network, machine.execution, self.precision.half)
        self.precision.prepare(trained.network)
        self.transform = DeviceTransform(self.precision.input_dtype, trained.modality)
        self.batch_size = machine.batch_size or int(trained.config.get("eval_batch_size") or BATCH_SIZE)
        self.description = "%s, %s, execution %s, %d clip(s) a step, %d process(es), torch %s" % (
            devices.device_name(machine.device), self.precision.label, execution, self.batch_size,
            machine.ranks.world_size, torch.__version__)

    def eval_transform(self, views: Views) -> EvalTransform:
        """The host's part: how frames are scaled and cut."""
        geometry = self.trained.geometry
        return EvalTransform(geometry.crop, geometry.eval_short_side, views.crops, views.flips)

    def loader(self, videos: VideoList, views: Views) -> ClipLoader:
        """Host batches of this process's share of the videos."""
        geometry, ranks = self.trained.geometry, self.machine.ranks
        clips = ClipDataset(videos, geometry.clip_length, geometry.val_interval, self.eval_transform(views), 0, False)
        few = len(videos) * views.clips <= self.batch_size  # a process that reads them takes longer to start
        return eval_loader(clips.with_clips(views.clips), ranks.rank, ranks.world_size, self.batch_size,
                           0 if few else self.machine.workers, self.machine.device.type != "cpu")

    def evaluate(self, batches: Any, views: Views, on_logits: Callable[[Any, torch.Tensor], Any],
                 on_failures: Optional[Callable[[Any], Any]] = None) -> Scores:
        """Counts over all processes, every clip and window for itself."""
        return evaluate(self.trained.network, batches, self.transform, self.precision, on_failures, views.windows,
                        on_logits)

    def each_batch(self, batches: Any, views: Views) -> Iterator[Tuple[Any, torch.Tensor]]:
        """Batches on the device, with logits (N, V, K), V = windows of a clip."""
        return each_batch(self.trained.network, batches, self.transform, self.precision, views.windows)
