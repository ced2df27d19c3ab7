"""Evaluation, where nothing is learned: BatchNorm that follows a convolution goes into the convolution's weights.

Letters as in network/folded.py: N batch, C channels in, M in the middle, O out, T frames, L columns.
"""
from typing import Any, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from network import folded

_ONEDNN_WIDTH = 128     # from here on oneDNN is the faster


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: Tuple[int, ...], padding: Tuple[int, ...]) -> Tensor:
    """F.conv3d by oneDNN where that is faster: for one clip on one thread PyTorch unfolds instead."""
    if x.dtype == torch.float32 and len(weight) >= _ONEDNN_WIDTH and torch.backends.mkldnn.is_available():
        return torch.ops.aten.mkldnn_convolution(x, weight, bias, padding, stride, (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, stride, padding)


def bottleneck(block: Any, x: Tensor) -> Tensor:
    """What the block gives in evaluation: (N, C, T, H, W) -> (N, O, T', H', W')."""
    clips, space, last = folded.clips_together(x), block.folded, block.conv_m3.conv
    sheet = folded.beside(x, clips)                                             # (B, C, T, clips, H, W)
    flat, plane, middle = sheet.flatten(2), sheet[0, 0, 0].numel(), block.conv_m2.conv
    norm2, norm3 = folded.affine(block.conv_m2.bn, flat), folded.affine(block.conv_m3.bn, flat)
    taps = folded.taps_of(block.conv_m1.conv.weight, plane)
    taps = taps._replace(weights=taps.weights * norm2.scale)                    # (K, M, C)
    first = space.empty((flat.shape[0], middle.weight.shape[1], flat.shape[2]), x)
    folded.multiply(flat, folded.affine(block.conv_m1.bn, flat), taps, first, bias=norm2.shift).relu_()     # (B, M, L)
    first = folded.every(first.view(first.shape[:2] + sheet.shape[2:]), (middle.stride[0], 1, 1))
    second = _convolve(folded.apart(first), middle.weight * norm3.scale[:, :, None, None, None],
                       norm3.shift.squeeze(1), (1,) + tuple(middle.stride[1:]), tuple(middle.padding)).relu_()
    second = folded.beside(second, clips)                                       # (B, M, T', clips, H', W')
    shape = (flat.shape[0], last.weight.shape[0]) + tuple(second.shape[2:])
    shortcut, out = flat, space.empty((shape[0], shape[1], second[0, 0].numel()), x)
    if block.first:
        conv = block.conv_w1.conv
        read, taps = folded.every(sheet, conv.stride).flatten(2), folded.taps_of(conv.weight, plane)
        shortcut = folded.multiply(read, folded.affine(block.conv_w1.bn, flat), taps, out)      # (B, O, L')
    for begin, source, target in zip(shortcut, second.flatten(2), out):
        torch.addmm(begin, last.weight.flatten(1), source, out=target)          # (O, M) (M, L') -> (O, L')
    return folded.apart(out.view(shape))


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
    """What the stem's layers give in evaluation: (N, C, T, H, W) -> (N, O, T, H', W')."""
    conv, bn = layers.conv, layers.bn
    scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)            # (O,)
    x = F.conv3d(clip, conv.weight * scale[:, None, None, None, None], bn.bias - bn.running_mean * scale, conv.stride,
                 conv.padding)
    return _maxima(_maxima(x, 3), 4).relu_()                            # (N, O, T, H', W')
