"""Parameters and multiply-adds of a network, counted while it runs: convolutions, linear layers, GloRe's products."""
from typing import Any, List, Sequence

import torch
from torch import Tensor, nn

from network.glore import GloReUnit

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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


def count_flops(net: nn.Module, clip_shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass on clip_shape: (C, T, H, W) for one clip, or (N, C, T, H, W).

    Runs the network once, on zeros and where its weights are; nothing of it is changed.
    """
    weight = next(net.parameters())
    shape = tuple(clip_shape) if len(clip_shape) == 5 else (1,) + tuple(clip_shape)
    counts: List[int] = []

    def add(module: Any, inputs: Any, out: Tensor) -> None:
        counts.append(_multiply_adds(module, inputs[0], out))

    counted = _CONVOLUTIONS + (nn.Linear, GloReUnit)
    hooks = [module.register_forward_hook(add) for module in net.modules() if isinstance(module, counted)]
    modes = [(module, module.training) for module in net.modules()]
    try:
        net.eval()
        with torch.no_grad():
            net(torch.zeros(shape, dtype=weight.dtype, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return sum(counts)
