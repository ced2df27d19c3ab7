"""BatchNorm over the clips of all processes. PyTorch's own SyncBatchNorm has no CPU kernels; there this one computes.

N batch, C channel, * positions. Sums go over N and *, then over the processes.
"""
from typing import Any, Tuple

import torch
from torch import Tensor, nn

from train.distributed import all_reduce_sum, in_group


def _sums(x: Tensor) -> Tensor:
    """(N, C, *) -> (C,)"""
    return x.transpose(0, 1).flatten(1).sum(1)


def _over(values: Tensor, x: Tensor) -> Tensor:
    """(C,) as (1, C, 1, ...), to be broadcast over x."""
    return values.view((1, -1) + (1,) * (x.dim() - 2))


class _Normalize(torch.autograd.Function):
    """x (N, C, *), weight and bias (C,) -> output like x, mean (C,), biased variance (C,), values a channel (1,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tuple[Tensor, ...]:  # type: ignore
        wide = x if x.dtype == torch.float64 else x.float()
        count = torch.full((1,), x.numel() // x.shape[1], dtype=wide.dtype)
        sums = all_reduce_sum(torch.cat([_sums(wide), count]))                  # (C + 1,)
        mean, total = sums[:-1] / sums[-1:], sums[-1:].clone()
        centred = wide - _over(mean, x)
        var = all_reduce_sum(_sums(centred * centred)) / total                  # (C,)
        scale = (var + eps).rsqrt()                                             # (C,)
        normal = centred * _over(scale, x)
        ctx.save_for_backward(normal, weight, scale, total)
        ctx.mark_non_differentiable(mean, var, total)
        out = normal * _over(weight.to(wide.dtype), x) + _over(bias.to(wide.dtype), x)
        return out.to(x.dtype), mean, var, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> Tuple[Any, ...]:  # type: ignore
        normal, weight, scale, total = ctx.saved_tensors
        wide = grad.to(normal.dtype)
        bias_grad, weight_grad = _sums(wide), _sums(wide * normal)              # (C,) of this process
        means = all_reduce_sum(torch.cat([bias_grad, weight_grad])) / total     # (2 C,)
        mean_grad, mean_product = (_over(part, wide) for part in means.chunk(2))
        x_grad = _over(weight.to(wide.dtype) * scale, wide) * (wide - mean_grad - normal * mean_product)
        return x_grad.to(grad.dtype), weight_grad.to(weight.dtype), bias_grad.to(weight.dtype), None


class SyncNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose training statistics are those of the global batch, with BatchNorm's names.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError("a clip has at least the dimensions (N, C), not %d" % input.dim())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        out, mean, var, total = _Normalize.apply(x, self.weight, self.bias, self.eps)
        self._track(mean, var * total / (total - 1))
        return out

    def _track(self, mean: Tensor, var: Tensor) -> None:
        batches: Any = self.num_batches_tracked
        with torch.no_grad():
            batches += 1
            share = 1.0 / float(batches) if self.momentum is None else self.momentum
            for running, value in ((self.running_mean, mean), (self.running_var, var)):
                assert running is not None
                running.mul_(1 - share).add_(share * value.to(running.dtype))


def synchronize_norms(network: nn.Module, device: torch.device) -> nn.Module:
    """The network with every BatchNorm over all processes; parameters, buffers and their names are the same. Alone: as
    it is.
    """
    if not in_group():
        return network
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for name, child in list(network.named_children()):
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            norm = SyncNorm(child.num_features, child.eps, child.momentum)
            norm.weight, norm.bias = child.weight, child.bias
            norm.running_mean, norm.running_var = child.running_mean, child.running_var
            norm.num_batches_tracked, norm.training = child.num_batches_tracked, child.training
            setattr(network, name, norm)
        else:
            synchronize_norms(child, device)
    return network
