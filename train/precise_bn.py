"""Precise BatchNorm: the statistics that evaluation uses, re-estimated from many batches at fixed weights.

Each layer's mean and mean square are averaged over the batches and the processes; nothing else of the network changes.
"""
from typing import Any, Callable, Iterable, List

import torch
from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]


class _Pool:
    """One layer's sums over batches, and what has to be put back afterwards."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self._momentum, self._batches = layer.momentum, layer.num_batches_tracked.clone()
        self._before = layer.running_mean.clone(), layer.running_var.clone()
        self.mean = torch.zeros_like(layer.running_mean, dtype=torch.float32)
        self.square = torch.zeros_like(self.mean)
        layer.momentum = 1.0  # the running buffers are then the batch's own statistics

    def add(self) -> None:
        """Takes the statistics of the batch that has just passed."""
        mean = self.layer.running_mean.float()
        self.mean += mean
        self.square += self.layer.running_var.float() + mean ** 2

    def restore(self) -> None:
        """Everything as it was before."""
        self.layer.momentum = self._momentum
        self.layer.num_batches_tracked.copy_(self._batches)
        self.layer.running_mean.copy_(self._before[0])
        self.layer.running_var.copy_(self._before[1])


def reestimate_statistics(model: nn.Module, forwards: Iterable[Callable[[], Any]],
                          reduce: Reduce = lambda tensor: tensor) -> int:
    """Runs `forwards`, each one forward pass in training mode, and pools the statistics of their batches.

    mean = E[mean], variance = E[variance + mean^2] - mean^2, the variance of a batch being the unbiased one. `reduce`
    sums a tensor over the processes. Returns the number of passes in all; without one the buffers keep what they had.
    """
    layers: List[Any] = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    pools = [_Pool(layer) for layer in layers if layer.track_running_stats]
    was_training, count = model.training, 0
    try:
        model.train()
        with torch.no_grad():
            for forward in forwards:
                forward()
                count += 1
                for pool in pools:
                    pool.add()
    finally:
        for pool in pools:
            pool.restore()
        model.train(was_training)
    return _write(pools, count, reduce)


def _write(pools: List[_Pool], count: int, reduce: Reduce) -> int:
    """Writes the pooled statistics, after one reduction for all layers."""
    if not pools:
        return 0
    sums = [tensor for pool in pools for tensor in (pool.mean, pool.square)]
    flat = reduce(torch.cat(sums + [torch.full_like(sums[0][:1], count)]))  # (sum of sizes + 1,)
    total = int(flat[-1].item())
    if total == 0:
        return 0
    parts = iter((flat[:-1] / total).split([tensor.numel() for tensor in sums]))
    for pool in pools:
        mean, square = next(parts), next(parts)
        pool.layer.running_mean.copy_(mean)
        pool.layer.running_var.copy_((square - mean ** 2).clamp_(min=0))
    return total
