"""What the options of a step cost.

    python -m tools.benchmark_options --device cpu --batch-size 4 --crop-size 112

Each by itself against the plain step on as many synthetic clips, interleaved as in tools/benchmark.py, with the memory
that a variant adds to the process. Results are kept in benchmarks/step.md.
"""
import functools
import sys
from typing import Callable, Dict, NamedTuple, Optional, Sequence

import torch

from data.device_transforms import DeviceTransform
from dataset.options import CommandParser
from network import build_network
from network.execution import EXECUTIONS, set_execution
from network.recomputation import set_recomputation
from tools.benchmark_step import Setup, measure, synthetic_batch
from tools.timing import markdown, processor_seconds, write_json
from train import device as devices
from train.amp import LEVELS
from train.amp_choice import build_precision
from train.ema import AveragedWeights
from train.gradient_norm import GradientNorm
from train.loop import Slots, Trainer
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate

PLAIN = "plain"


class Variant(NamedTuple):
    """What is on."""

    accumulate: int = 1
    clips_gradients: bool = False
    averages: bool = False
    recomputes: bool = False


VARIANTS = {PLAIN: Variant(), "accumulate 2": Variant(accumulate=2), "clip-grad-norm": Variant(clips_gradients=True),
            "ema-decay": Variant(averages=True), "activation-checkpointing": Variant(recomputes=True)}


def step_variant(setup: Setup, execution: str, level: str, variant: Variant) -> Callable[[], None]:
    """A function that runs one whole training step of a variant, on a network of its own."""
    torch.manual_seed(0)
    precision = build_precision(level, "native", "auto", devices.half_dtype(setup.device), setup.device, None)
    network = build_network(setup.network, 101).to(setup.device)
    set_execution(network, execution, precision.half)
    set_recomputation(network, variant.recomputes)
    optimizer = build_sgd(parameter_groups(precision.prepare(network), 1e-4, False), 1e-3)
    limit = GradientNorm(1.0, setup.device) if variant.clips_gradients else None
    ema = AveragedWeights(precision, network, 0.999) if variant.averages else None
    trainer = Trainer(network, optimizer, LearningRate(1e-3), precision, DeviceTransform(precision.input_dtype), 1,
                      Slots(0, 1, variant.accumulate), gradient_norm=limit, ema=ema)
    trainer.model.train()
    batch = synthetic_batch(setup._replace(batch_size=setup.batch_size // variant.accumulate), 101)

    def step() -> None:
        for micro in range(variant.accumulate):
            trainer.step(batch, 1, micro)
    return step


def build_parser() -> CommandParser:
    """The command's options."""
    parser = CommandParser("tools.benchmark_options", __doc__)
    parser.add_argument("--network", default="RESNET50_3D_GCN_X5")
    parser.add_argument("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"))
    parser.add_argument("--batch-size", type=int, default=2, help="clips of a step, an even number [2]")
    parser.add_argument("--clip-length", type=int, default=8, help="frames [8]")
    parser.add_argument("--crop-size", type=int, default=224, help="pixels [224]")
    parser.add_argument("--execution", default="reference", choices=EXECUTIONS)
    parser.add_argument("--opt-level", default="O0", choices=sorted(LEVELS))
    parser.add_argument("--variants", default=",".join(VARIANTS), help="besides plain [all]")
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each variant [9]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's own choice)")
    parser.add_argument("--processor-time", action="store_true",
                        help="count time on processors: for a machine that is busy, with --threads 1")
    parser.add_argument("--json", help="also write the rows there")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    parser = build_parser()
    options = parser.read(argv)
    names = [PLAIN] + [name for name in options.variants.split(",") if name != PLAIN]
    if set(names) - set(VARIANTS) or min(options.rounds, options.clip_length, options.crop_size) < 1:
        parser.error("--variants %s: takes %s; sizes are 1 or more" % (options.variants, ", ".join(VARIANTS)))
    if options.batch_size < 2 or options.batch_size % 2:
        parser.error("--batch-size %d: takes an even number, which --accumulate divides" % options.batch_size)
    if options.threads:
        torch.set_num_threads(options.threads)
    setup = Setup(options.network, options.batch_size, options.clip_length, options.crop_size,
                  devices.choose_device(options.device))
    builds: Dict[str, Callable[[], Callable[[], None]]] = {name: functools.partial(
        step_variant, setup, options.execution, options.opt_level, VARIANTS[name]) for name in names}
    rows = measure(builds, setup, options.rounds, processor_seconds if options.processor_time else None, PLAIN)
    print("step, %s, %d clips of %dx%dx%d, %s, %s execution, %s, %s clock, torch %s" % (
        setup.network, setup.batch_size, setup.frames, setup.crop, setup.crop, options.opt_level, options.execution,
        devices.device_name(setup.device), "processor" if options.processor_time else "wall", torch.__version__))
    print(markdown(["variant", "clips/s", "ratio to the plain step", "memory it adds, GiB"], [
        [row["variant"], "%.2f" % row["clips_per_second"], "%.3f" % row["ratio"],
         "-" if row["peak_memory_bytes"] is None else "%.2f" % (row["peak_memory_bytes"] / 2 ** 30)] for row in rows]))
    if options.json:
        write_json(options.json, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
