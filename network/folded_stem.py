"""The stem where nothing is learned: BatchNorm goes into the convolution's weights, pooling into whole rows' maxima."""
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _maxima(x: Tensor, dim: int) -> Tensor:
    """Maxima of windows of 3 at every second place along a dimension, which shrinks to half, rounded up."""
    window = [slice(None)] * x.dim()

    def part(tensor: Tensor, begin: int, end: int, step: int = 1) -> Tensor:
        window[dim] = slice(begin, end, step)
        return tensor[tuple(window)]

    length = x.shape[dim]
    out, between = part(x, 0, length, 2).contiguous(), part(x, 1, length, 2)
    count, inner = between.shape[dim], out.shape[dim] - 1
    before, after = part(out, 0, count), part(out, 1, inner + 1)
    torch.maximum(before, between, out=before)                          # the neighbour behind
    torch.maximum(after, part(between, 0, inner), out=after)            # and the one in front
    return out


def stem(layers: Any, clip: Tensor) -> Tensor:
    """What the stem's layers give in evaluation: (N, 3, T, H, W) -> (N, C, T, H', W')."""
    conv, bn = layers.conv, layers.bn
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)            # (C,)
    x = F.conv3d(clip, conv.weight * scale[:, None, None, None, None], bn.bias - bn.running_mean * scale, conv.stride,
                 conv.padding)
    return _maxima(_maxima(x, 3), 4).relu_()                            # (N, C, T, H', W')
