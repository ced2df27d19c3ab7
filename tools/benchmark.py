"""Times the work of a training run: `python -m tools.benchmark step --device cpu --batch-size 2 --json step.json`.

Variants are interleaved in one run and compared by medians, so that a machine whose speed drifts favours none.
`step` and `infer` take synthetic clips: the device's own limit; `input` times the pipeline up to the device.
Results with their set-up are kept in benchmarks/.
"""
import argparse
import functools
import statistics
import sys
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch

from data.clip_dataset import ClipBatch
from data.device_transforms import DeviceTransform
from network import build_network
from network.execution import set_execution
from network.flops import count_flops
from tools import benchmark_input
from tools.limits import peak_bytes, product_rate, reset_peak
from tools.timing import interleave, markdown, paired_ratio, write_json
from train import device as devices
from train.amp_choice import build_precision
from train.loop import Trainer
from train.optim import build_sgd, parameter_groups
from train.prefetch import to_device
from train.schedule import LearningRate

REFERENCE = "reference"
WARMUP_STEPS = 3


class Variant(NamedTuple):
    """A row of the table: how the network is executed (network/execution.py), and the level of mixed precision."""

    execution: str
    level: str


# `reference` is PyTorch's own layers and its SGD as a loop over tensors
VARIANTS = {REFERENCE: Variant("reference", "O0"), "auto": Variant("auto", "O0"), "folded": Variant("folded", "O0"),
            "compiled": Variant("compiled", "O0"), "O1": Variant("auto", "O1"), "O2": Variant("auto", "O2"),
            "O3": Variant("auto", "O3")}


class Setup(NamedTuple):
    """What is timed: a network, a batch of clips, a device."""

    network: str
    batch_size: int
    frames: int
    crop: int
    device: torch.device


def synthetic_batch(setup: Setup, num_classes: int) -> ClipBatch:
    """A batch as it comes from the loader, of noise, on the device."""
    size = setup.batch_size
    generator = torch.Generator().manual_seed(0)
    shape = (size, setup.frames, setup.crop, setup.crop, 3)
    batch = ClipBatch(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8),
                      torch.randint(0, num_classes, (size,), generator=generator), torch.arange(size),
                      torch.tensor([[5, -9, 7]] * size), torch.tensor([[-9.0, 11.0]] * size), torch.arange(size),
                      torch.ones(size, dtype=torch.bool), (), True)
    return to_device(batch, setup.device)


def step_variant(setup: Setup, variant: Variant) -> Callable[[], None]:
    """A function that runs one whole training step of a variant, on a network of its own."""
    torch.manual_seed(0)
    precision = build_precision(variant.level, "native", "auto", devices.half_dtype(setup.device), setup.device, 128.0)
    network = build_network(setup.network, 101).to(setup.device)
    set_execution(network, variant.execution)
    parameters = precision.prepare(network)
    optimizer = build_sgd(parameter_groups(parameters, 1e-4, False), 1e-3, plain=variant == VARIANTS[REFERENCE])
    trainer = Trainer(network, optimizer, LearningRate(1e-3), precision, DeviceTransform(precision.input_dtype), 1)
    trainer.model.train()
    batch = synthetic_batch(setup, 101)
    return lambda: None if trainer.step(batch, 1) else None


def infer_variant(setup: Setup, variant: Variant) -> Callable[[], None]:
    """A function that classifies one batch."""
    torch.manual_seed(0)
    precision = build_precision(variant.level, "native", "auto", devices.half_dtype(setup.device), setup.device)
    network = build_network(setup.network, 101).to(setup.device).eval()
    set_execution(network, variant.execution)
    precision.prepare(network)
    batch, transform = synthetic_batch(setup, 101)._replace(augmented=False), DeviceTransform(precision.input_dtype)

    def infer() -> None:
        with torch.no_grad(), precision.cast():
            network(transform(batch))
    return infer


def measure(variants: Dict[str, Callable[[], Callable[[], None]]], setup: Setup, rounds: int) -> List[Dict[str, Any]]:
    """Median clips a second of each variant over interleaved rounds; `ratio` is the median of the paired ones."""
    ready = {}
    peaks: Dict[str, Optional[int]] = {}
    for name, build in variants.items():
        reset_peak(setup.device)
        resident = peak_bytes(setup.device)
        ready[name] = build()
        for _ in range(WARMUP_STEPS):
            ready[name]()
        devices.synchronize(setup.device)
        peak = peak_bytes(setup.device)
        peaks[name] = None if peak is None or resident is None else peak - resident
    seconds = interleave(ready, rounds, functools.partial(devices.synchronize, setup.device))
    return [{"variant": name, "clips_per_second": setup.batch_size / statistics.median(times),
             "ratio": paired_ratio(seconds[REFERENCE], times),
             "spread": [setup.batch_size / max(times), setup.batch_size / min(times)], "peak_memory_bytes": peaks[name]}
            for name, times in seconds.items()]


def work_line(setup: Setup, what: str, rows: Sequence[Dict[str, Any]]) -> str:
    """The arithmetic that the network's definition asks for, and the share of the device's own rate it runs at.

    A training step counts three forward passes. What a variant saves by regrouping products counts as done.
    """
    operations = 2 * count_flops(build_network(setup.network, 101), (3, setup.frames, setup.crop, setup.crop))
    operations *= 3 if what == "step" else 1
    rate = product_rate(setup.device, torch.float32)
    shares = ", ".join("%s %.0f GFLOP/s (%.0f %%)" % (
        row["variant"], row["clips_per_second"] * operations / 1e9, 100 * row["clips_per_second"] * operations / rate)
        for row in rows)
    return "%.1f GFLOP a clip; fp32 matrix products run at %.0f GFLOP/s here; %s" % (
        operations / 1e9, rate / 1e9, shares)


def table(rows: Sequence[Dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    cells = []
    for row in rows:
        memory = "-" if row["peak_memory_bytes"] is None else "%.2f" % (row["peak_memory_bytes"] / 2 ** 30)
        cells.append([row["variant"], "%.2f" % row["clips_per_second"], "%.2f to %.2f" % tuple(row["spread"]),
                      "%.2f" % row["ratio"], memory])
    return markdown(["variant", "clips/s", "slowest to fastest", "ratio to reference", "peak memory, GiB"], cells)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `step` and `infer`."""
    parser.add_argument("--network", default="RESNET50_3D_GCN_X5")
    parser.add_argument("--device", default="auto", choices=("auto", "npu", "cuda", "cpu"))
    parser.add_argument("--batch-size", type=int, default=2, help="clips [2]")
    parser.add_argument("--clip-length", type=int, default=8, help="frames [8]")
    parser.add_argument("--crop-size", type=int, default=224, help="pixels [224]")
    parser.add_argument("--variants", default="reference,auto", help="of %s [reference,auto]" % ", ".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each variant [9]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's own choice)")
    parser.add_argument("--json", help="also write the rows there")


def run(build: Callable[[Setup, Variant], Callable[[], None]], parser: argparse.ArgumentParser,
        options: argparse.Namespace) -> int:
    """Measures steps or inference, prints the table, writes the JSON."""
    unknown = [name for name in options.variants.split(",") if name not in VARIANTS]
    if unknown or min(options.batch_size, options.rounds, options.clip_length, options.crop_size) < 1:
        parser.error("--variants %s: takes %s; sizes are 1 or more" % (options.variants, ", ".join(VARIANTS)))
    if options.threads:
        torch.set_num_threads(options.threads)
    setup = Setup(options.network, options.batch_size, options.clip_length, options.crop_size,
                  devices.choose_device(options.device))
    names = sorted(set(options.variants.split(",")) | {REFERENCE}, key=list(VARIANTS).index)
    rows = measure({name: functools.partial(build, setup, VARIANTS[name]) for name in names}, setup, options.rounds)
    print("%s, %s, batch %d of %dx%dx%d, %s, torch %s" % (options.what, setup.network, setup.batch_size, setup.frames,
          setup.crop, setup.crop, devices.device_name(setup.device), torch.__version__))
    print(table(rows))
    print(work_line(setup, options.what, rows))
    if options.json:
        write_json(options.json, rows)
    return 0


WORK: Dict[str, Tuple[str, Callable[..., None], Callable[..., int]]] = {  # (words, options, function)
    "step": ("a whole training step", add_options, functools.partial(run, step_variant)),
    "infer": ("classification alone", add_options, functools.partial(run, infer_variant)),
    "input": ("the input pipeline against its decode floor", benchmark_input.add_options, benchmark_input.run),
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark", description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(dest="what", metavar="{%s}" % ",".join(WORK))
    commands.required = True
    for name, (words, options_of, work) in WORK.items():
        command = commands.add_parser(name, help=words)
        options_of(command)
        command.set_defaults(work=functools.partial(work, command))
    options = parser.parse_args(argv)
    return int(options.work(options))


if __name__ == "__main__":
    sys.exit(main())
