"""`python -m tools.benchmark step|infer`: a whole training step, or classification alone, on synthetic clips."""
import argparse
import functools
import statistics
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from data.clip_dataset import ClipBatch
from data.device_transforms import DeviceTransform
from network import build_network
from network.execution import EXECUTIONS, GRAPH_DEVICES, set_execution
from network.flops import count_flops
from tools.limits import allow_tf32, copy_rate, peak_bytes, product_rate, reset_peak
from tools.timing import interleave, markdown, paired_ratio, processor_seconds, write_json
from train import device as devices
from train.amp import Precision
from train.amp_choice import build_precision
from train.loop import Trainer
from train.optim import build_sgd, parameter_groups
from train.prefetch import to_device
from train.schedule import LearningRate

REFERENCE, CLASSES = "reference", 101
WARMUP_STEPS = 3
TOUCHES = 13    # of each activation value in a step: written, summed, normalised and read, forward and backward


class Variant(NamedTuple):
    """A row of the table: how the network is executed (network/execution.py), and the level of mixed precision.

    `channels_last` asks for that layout alone. `tf32`: whether fp32 products and convolutions may use it; None is
    PyTorch's own choice, which is convolutions alone. `graphs` records the kernels as CUDA graphs.
    """

    execution: str
    level: str = "O0"
    channels_last: bool = False
    tf32: Optional[bool] = None
    graphs: bool = False


def _variants() -> Dict[str, Variant]:
    """`reference` is PyTorch's own layers and its SGD as a loop over tensors. `O2` is `auto` at that level."""
    executed = {name: Variant(name) for name in EXECUTIONS if name != "auto"}
    executed["compiled-graphs"] = Variant("compiled", graphs=True)
    executed["channels-last"] = Variant("reference", channels_last=True)
    table = {REFERENCE: executed[REFERENCE], "auto": Variant("auto"), **executed}
    table.update(strict=Variant("reference", tf32=False), tf32=Variant("reference", tf32=True))
    for level in ("O1", "O2", "O3"):
        table[level] = Variant("auto", level)
        table.update({"%s-%s" % (name, level): row._replace(level=level) for name, row in executed.items()})
    return table


VARIANTS = _variants()


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


def allow(variant: Variant) -> None:
    """Sets what the whole process may round to TF32."""
    allow_tf32(variant.tf32 is True, variant.tf32 is not False)


def _network(setup: Setup, variant: Variant, loss_scale: Optional[float] = None) -> Tuple[nn.Module, Precision]:
    """The network in its execution, and its precision, which has yet to convert it."""
    torch.manual_seed(0)
    precision = build_precision(variant.level, "native", "auto", devices.half_dtype(setup.device), setup.device,
                                loss_scale)
    network = build_network(setup.network, CLASSES).to(setup.device)
    if variant.channels_last:
        network.to(memory_format=torch.channels_last_3d)    # type: ignore[call-overload]
    set_execution(network, variant.execution, precision.half, variant.graphs)
    return network, precision


def trained_variant(setup: Setup, variant: Variant) -> Callable[[ClipBatch], None]:
    """A function that takes one whole training step of a variant on a batch, on a network of its own."""
    network, precision = _network(setup, variant, 128.0)
    parameters = precision.prepare(network)
    plain = variant.execution == REFERENCE and variant.level == "O0"
    optimizer = build_sgd(parameter_groups(parameters, 1e-4, False), 1e-3, plain=plain)
    transform = laid_out(DeviceTransform(precision.input_dtype), variant)
    trainer = Trainer(network, optimizer, LearningRate(1e-3), precision, transform, 1)
    trainer.model.train()

    def step(batch: ClipBatch) -> None:
        allow(variant)
        trainer.step(batch, 1)
    return step


def laid_out(transform: Callable[[ClipBatch], Tensor], variant: Variant) -> Callable[[ClipBatch], Tensor]:
    """The transform, its clips in the layout of the variant's weights."""
    if not variant.channels_last:
        return transform
    return lambda batch: transform(batch).contiguous(memory_format=torch.channels_last_3d)


def step_variant(setup: Setup, variant: Variant) -> Callable[[], None]:
    """A function that runs one whole training step of a variant."""
    return functools.partial(trained_variant(setup, variant), synthetic_batch(setup, CLASSES))


def infer_variant(setup: Setup, variant: Variant) -> Callable[[], None]:
    """A function that classifies one batch."""
    network, precision = _network(setup, variant)
    network.eval()
    precision.prepare(network)
    batch = synthetic_batch(setup, CLASSES)._replace(augmented=False)
    transform = laid_out(DeviceTransform(precision.input_dtype), variant)

    def infer() -> None:
        allow(variant)
        with torch.no_grad(), precision.cast():
            network(transform(batch))
    return infer


def measure(variants: Dict[str, Callable[[], Callable[[], None]]], setup: Setup, rounds: int,
            clock: Optional[Callable[[], float]] = None, base: str = REFERENCE) -> List[Dict[str, Any]]:
    """Median clips a second of each variant in interleaved rounds; `ratio` to `base`: of the paired ones."""
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
    seconds = interleave(ready, rounds, functools.partial(devices.synchronize, setup.device), clock)
    return [{"variant": name, "clips_per_second": setup.batch_size / statistics.median(times),
             "ratio": paired_ratio(seconds[base], times),
             "spread": [setup.batch_size / max(times), setup.batch_size / min(times)], "peak_memory_bytes": peaks[name]}
            for name, times in seconds.items()]


def add_shares(rows: Sequence[Dict[str, Any]], setup: Setup, what: str) -> str:
    """Adds to each row the model's arithmetic a second, `flops_per_second`, and its share of the device's own rate in
    the row's type, `product_share`; a step's also `byte_share`, of the floor that memory sets. Returns them in words.

    A training step counts three forward passes. What a variant saves by regrouping products counts as done.
    """
    operations = 2 * count_flops(build_network(setup.network, CLASSES), (3, setup.frames, setup.crop, setup.crop))
    operations *= 3 if what == "step" else 1
    rates: Dict[Tuple[str, bool], float] = {}
    values, words = activation_values(setup), []
    bandwidth = copy_rate(setup.device)
    for row in rows:
        variant = VARIANTS[row["variant"]]
        dtype = build_precision(variant.level, "native", "auto", devices.half_dtype(setup.device), setup.device).dtype
        kind = (str(dtype).replace("torch.", ""), variant.tf32 is not False)
        if kind not in rates:
            allow_tf32(kind[1], kind[1])
            rates[kind] = product_rate(setup.device, dtype)
        row["flops_per_second"] = row["clips_per_second"] * operations
        row["product_share"] = row["flops_per_second"] / rates[kind]
        text = "%s %.0f GFLOP/s (%.0f %%" % (row["variant"], row["flops_per_second"] / 1e9, 100 * row["product_share"])
        if what == "step":
            floor = bandwidth / (values * TOUCHES * torch.empty(0, dtype=dtype).element_size())
            row["byte_share"] = row["clips_per_second"] / floor
            text += ", of the bytes' floor %.0f %%" % (100 * row["byte_share"])
        words.append(text + ")")
    products = ", ".join("%s%s at %.0f GFLOP/s" % (name, "" if tf32 else " strictly", rate / 1e9)
                         for (name, tf32), rate in rates.items())
    return "%.1f GFLOP and %.1f M activation values a clip; products run in %s here, copies at %.1f GB/s; %s" % (
        operations / 1e9, values / 1e6, products, bandwidth / 1e9, ", ".join(words))


def activation_values(setup: Setup) -> int:
    """Results of all convolutions over one clip."""
    network, counts = build_network(setup.network, CLASSES).eval(), [0]
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(lambda _, inputs, out: counts.append(out.numel()))
    with torch.no_grad():
        network(torch.zeros(1, 3, setup.frames, setup.crop, setup.crop))
    return sum(counts)


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
    parser.add_argument("--variants", default="reference,auto",
                        help="of %s; reference and auto are always there" % ", ".join(VARIANTS))
    parser.add_argument("--rounds", type=int, default=9, help="timed steps of each variant [9]")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (0: PyTorch's own choice)")
    parser.add_argument("--processor-time", action="store_true",
                        help="count time on processors: for a machine that is busy, with --threads 1")
    parser.add_argument("--json", help="also write the rows there")


def read_setup(parser: argparse.ArgumentParser, options: argparse.Namespace) -> Tuple[Setup, Dict[str, Variant]]:
    """What add_options' options ask for: set-up and variants."""
    names = options.variants.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown or min(options.batch_size, options.rounds, options.clip_length, options.crop_size) < 1:
        parser.error("--variants %s: takes %s; sizes are 1 or more" % (options.variants, ", ".join(VARIANTS)))
    if options.threads:
        torch.set_num_threads(options.threads)
    setup = Setup(options.network, options.batch_size, options.clip_length, options.crop_size,
                  devices.choose_device(options.device))
    variants = {name: row for name, row in VARIANTS.items() if name in names + [REFERENCE, "auto"]}
    if any(row.graphs for row in variants.values()) and setup.device.type not in GRAPH_DEVICES:
        parser.error("--variants %s: CUDA graphs want --device cuda, and this is %s" % (options.variants, setup.device))
    return setup, variants


def head_line(what: str, setup: Setup) -> str:
    """What was measured on what."""
    return "%s, %s, batch %d of %dx%dx%d, %s, torch %s" % (
        what, setup.network, setup.batch_size, setup.frames, setup.crop, setup.crop,
        devices.device_name(setup.device), torch.__version__)


def _run(build: Callable[[Setup, Variant], Callable[[], None]], parser: argparse.ArgumentParser,
         options: argparse.Namespace) -> int:
    """Measures steps or inference, prints the table, writes the JSON."""
    setup, variants = read_setup(parser, options)
    rows = measure({name: functools.partial(build, setup, row) for name, row in variants.items()}, setup,
                   options.rounds, processor_seconds if options.processor_time else None)
    print(head_line(options.what, setup))
    print(table(rows))
    print(add_shares(rows, setup, options.what))
    if options.json:
        write_json(options.json, rows)
    return 0


run_step = functools.partial(_run, step_variant)
run_infer = functools.partial(_run, infer_variant)
