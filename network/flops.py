"""Parameters and multiply-adds of a network, counted while it runs: convolutions, linear layers, GloRe's products."""
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor, nn

from network.glore import GloReUnit

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Count(NamedTuple):
    """Of a part of a network: trained values, multiply-adds, and how many of both are its GloRe units'."""

    parameters: int
    multiply_adds: int
    glore_parameters: int
    glore_multiply_adds: int


def count_parameters(net: nn.Module) -> int:
    """The number of trained values, buffers left out."""
    return sum(parameter.numel() for parameter in net.parameters())


def _multiply_adds(module: Any, x: Tensor, out: Tensor) -> int:
    """Of one layer on one input; bias and normalisation, a thousandth of the rest, are left out."""
    if isinstance(module, _CONVOLUTIONS):
        return out.numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return out.numel() * module.in_features
    positions = x[:, 0].numel()                                 # N * L, for the products to and from the graph
    return 2 * module.num_state * module.num_node * positions


def _run(net: nn.Module, clip_shape: Sequence[int]) -> Tuple[Dict[str, int], Dict[str, Tuple[int, ...]]]:
    """Multiply-adds of every counted layer and output shapes of the net's own parts, by name, of one forward pass on
    zeros, where the weights are; nothing of the net is changed.
    """
    weight = next(net.parameters())
    shape = tuple(clip_shape) if len(clip_shape) == 5 else (1,) + tuple(clip_shape)
    counts: Dict[str, int] = {}
    shapes: Dict[str, Tuple[int, ...]] = {}

    def hook(name: str, module: Any) -> Any:
        def add(_: Any, inputs: Any, out: Tensor) -> None:
            if isinstance(module, counted):
                counts[name] = counts.get(name, 0) + _multiply_adds(module, inputs[0], out)
            shapes[name] = tuple(out.shape)
        return module.register_forward_hook(add)

    counted = _CONVOLUTIONS + (nn.Linear, GloReUnit)
    hooks = [hook(name, module) for name, module in net.named_modules() if name or isinstance(module, counted)]
    modes = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        with torch.no_grad():
            net(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    finally:
        for handle in hooks:
            handle.remove()
        for module, training in modes:
            module.training = training
    return counts, {name: shape for name, shape in shapes.items() if "." not in name}


def count_flops(net: nn.Module, clip_shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass on clip_shape: (3, T, H, W) for one clip, or (N, 3, T, H, W).

    Runs the network once, on zeros and where its weights are; nothing of it is changed.
    """
    return sum(_run(net, clip_shape)[0].values())


def count_parts(net: nn.Module, clip_shape: Sequence[int]) -> List[Tuple[str, Tuple[int, ...], Count]]:
    """Name, output shape and count of each part of a network that has parameters, in the order of its forward pass."""
    counts, shapes = _run(net, clip_shape)
    units = [name + "." for name, module in net.named_modules() if isinstance(module, GloReUnit)]
    values = {name: parameter.numel() for name, parameter in net.named_parameters()}

    def of(part: str, found: Dict[str, int], glore: bool) -> int:
        return sum(count for name, count in found.items() if (name + ".").startswith(part + ".")
                   and (not glore or any((name + ".").startswith(unit) for unit in units)))

    rows = [(part, shape, Count(of(part, values, False), of(part, counts, False), of(part, values, True),
                                of(part, counts, True))) for part, shape in shapes.items()]
    return [row for row in rows if row[2].parameters]


def describe(net: Any, clip_shape: Sequence[int]) -> str:
    """Parameters and multiply-adds of the network's parts as a table, its GloRe units' share beside them, and the sums
    with and without the units.
    """
    rows = count_parts(net, clip_shape)
    total = Count(*(sum(column) for column in zip(*(count for _, _, count in rows))))
    cells = [["part", "output", "parameters", "multiply-adds", "GloRe parameters", "GloRe multiply-adds"]]
    for name, shape, count in rows + [("all", (), total)]:
        cells.append([name, "x".join(str(size) for size in shape[1:])] + [
            format(number, ",") for number in (count.parameters, count.multiply_adds, count.glore_parameters,
                                               count.glore_multiply_adds)])
    if not total.glore_parameters:
        cells = [row[:4] for row in cells]
    widths = [max(len(cell) for cell in column) for column in zip(*cells)]
    cells.insert(1, ["-" * width for width in widths])
    table = ["| %s |" % " | ".join(
        cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths)))
        for row in cells]
    head = "%s, a clip of %s, %d classes" % (net.name, "x".join(str(size) for size in clip_shape), net.num_classes)
    return "\n".join([head] + table + [_sums(total)])


def _sums(total: Count) -> str:
    """The line below the table."""
    text = "%.2f million parameters, %.2f billion multiply-adds"
    whole = text % (total.parameters / 1e6, total.multiply_adds / 1e9)
    if not total.glore_parameters:
        return whole
    return "%s; without the GloRe units %s" % (whole, text % (
        (total.parameters - total.glore_parameters) / 1e6, (total.multiply_adds - total.glore_multiply_adds) / 1e9))
