"""The bottleneck block's forward and backward pass, written out on network/folded.py, as one node of autograd.

Only the input and the two inner results are kept for the backward pass. It can be run once for each forward pass or
more, but not be differentiated itself. Letters as in network/folded.py; B = N / clips, clips lying side by side.
"""
from typing import Any, List, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from network import folded, folded_eval
from network.folded import Affine
from network.workspace import Workspace

_PADDING = (0, 1, 1)        # of a (1, 3, 3) convolution


class _Inner(NamedTuple):
    """What the backward pass needs: the inner results (B, M, L) and each layer's normalisation."""

    first: Tensor
    second: Tensor
    norm1: Affine
    norm2: Affine
    norm3: Affine
    norm_shortcut: Optional[Affine]


def _frames(stride: Tuple[int, ...]) -> Tuple[int, int, int]:
    """The part of the middle convolution's stride that skips frames: its kernel is one frame deep."""
    return stride[0], 1, 1


def _in_plane(stride: Tuple[int, ...]) -> Tuple[int, int, int]:
    """The rest of it."""
    return 1, stride[1], stride[2]


def _result(space: Workspace, x: Tensor, taps: folded.Taps) -> Tensor:
    """Room for the taps' product with (B, C, L): (B, O, L)."""
    return space.empty((x.shape[0], taps.weights.shape[1], x.shape[2]), x)


def _middle_input(space: Workspace, first: Tensor, size: Tuple[int, ...], norm: Affine,
                  stride: Tuple[int, ...]) -> Tuple[Tensor, Tensor]:
    """The frames of (B, M, L) that the middle convolution reads, (B, M, L'), and their activation
    (B, M, T', clips, H, W).
    """
    source = folded.every(first.view(first.shape[:2] + size), _frames(stride))          # (B, M, T', clips, H, W)
    columns, active = source.flatten(2), space.empty(source.shape, source)
    for part, out in zip(columns, active.flatten(2)):
        folded.activate(part, norm, out)
    return columns, active


def forward(block: Any, x: Tensor) -> Tuple[Tensor, _Inner]:
    """(N, C, T, H, W) -> (N, O, T', H', W') and what the backward pass needs; running statistics move in training."""
    clips, space = folded.clips_together(x), block.folded
    sheet = folded.beside(x, clips)                                             # (B, C, T, clips, H, W)
    flat, size, plane = sheet.flatten(2), tuple(sheet.shape[2:]), sheet[0, 0, 0].numel()
    training = block.first and block.conv_m1.bn.training and block.conv_w1.bn.training
    known = folded.batch_statistics(flat) if training else None                 # one input, two layers
    norm1 = folded.affine(block.conv_m1.bn, flat, known)
    taps1 = folded.taps_of(block.conv_m1.conv.weight, plane)
    first = folded.multiply(flat, norm1, taps1, _result(space, flat, taps1))    # (B, M, L)
    norm2 = folded.affine(block.conv_m2.bn, first)
    conv = block.conv_m2.conv
    active = folded.apart(_middle_input(space, first, size, norm2, conv.stride)[1])     # (N, M, T', H, W)
    middle = F.conv3d(active, conv.weight, None, _in_plane(conv.stride), _PADDING)      # (N, M, T', H', W')
    del active
    middle = folded.beside(middle, clips)                                       # (B, M, T', clips, H', W')
    shape = (middle.shape[0], block.conv_m3.conv.weight.shape[0]) + tuple(middle.shape[2:])
    second = middle.flatten(2)                                                  # (B, M, L')
    norm3, taps3 = folded.affine(block.conv_m3.bn, second), folded.taps_of(block.conv_m3.conv.weight, plane)
    if not block.first:
        out = folded.multiply(second, norm3, taps3, _result(space, second, taps3), flat)        # (B, O, L')
        return folded.apart(out.view(shape)), _Inner(first, second, norm1, norm2, norm3, None)
    norm_shortcut = folded.affine(block.conv_w1.bn, flat, known)
    read = folded.every(sheet, block.conv_w1.conv.stride).flatten(2)            # (B, C, L')
    taps = folded.taps_of(block.conv_w1.conv.weight, plane)
    out = folded.multiply(read, norm_shortcut, taps, _result(space, read, taps))        # (B, O, L')
    out = folded.multiply(second, norm3, taps3, out, out)                       # (B, O, L')
    return folded.apart(out.view(shape)), _Inner(first, second, norm1, norm2, norm3, norm_shortcut)


def _scatter(dense: Tensor, size: Tuple[int, ...], stride: Tuple[int, ...], scale: Tensor, gradient: Tensor) -> None:
    """Adds gradient * scale (B, C, L') to the positions of (B, C, L) that a kernel of 1 with that stride read."""
    target = folded.read(dense.view(dense.shape[:2] + size), stride)            # (B, C, T', clips, H', W')
    target.add_(gradient.mul_(scale).view(target.shape))


class _Backward:
    """The backward pass of one block, last layer first; `gradients` collects (bn.weight, bn.bias, weight) of each."""

    def __init__(self, block: Any, sheet: Tensor, inner: _Inner) -> None:
        self.block, self.sheet, self.inner, self.space = block, sheet, inner, block.folded
        self.size, self.clips, self.plane = tuple(sheet.shape[2:]), sheet.shape[3], sheet[0, 0, 0].numel()

    def _multiply_backward(self, x: Tensor, norm: Affine, weight: Tensor, grad: Tensor) -> folded.LayerGradient:
        return folded.multiply_backward(x, norm, folded.taps_of(weight, self.plane), grad,
                                        self.space.empty(x.shape, x))

    def last(self, grad: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """(B, O, L') -> (B, M, L')."""
        second, norm = self.inner.second, self.inner.norm3
        weight = self.block.conv_m3.conv.weight
        layer = self._multiply_backward(second, norm, weight, grad)
        slope, offset = folded.through_statistics(norm, layer, second.shape[0] * second.shape[2])
        return folded.finish(layer.active, second, norm.scale, slope, offset), _parameters(norm, layer, weight)

    def middle(self, grad: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """(B, M, L') -> (B, M, L)."""
        first, norm, conv = self.inner.first, self.inner.norm2, self.block.conv_m2.conv
        read, active = _middle_input(self.space, first, self.size, norm, conv.stride)   # (B, M, T', clips, H, W)
        stride = _in_plane(conv.stride)
        rows, columns = (-(-size // step) for size, step in zip(self.size[2:], stride[1:]))
        above = grad.view(active.shape[:4] + (rows, columns))                   # (B, M, T', clips, H', W')
        gradient, weights, _ = torch.ops.aten.convolution_backward(
            folded.apart(above), folded.apart(active), conv.weight, None, stride, _PADDING, (1, 1, 1), False,
            (0, 0, 0), 1, (True, True, False))
        gradient = folded.beside(gradient.contiguous(), self.clips).flatten(2)  # (B, M, L'')
        layer = folded.mask_and_sum(read, norm, active.flatten(2), gradient, weights)
        slope, offset = folded.through_statistics(norm, layer, first.shape[0] * first.shape[2])
        parameters = _parameters(norm, layer, conv.weight)
        if conv.stride[0] == 1:
            return folded.finish(gradient, first, norm.scale, slope, offset), parameters
        dense = self.space.empty(first.shape, first)
        torch.mul(first, slope, out=dense).add_(offset)                         # (B, M, L)
        _scatter(dense, self.size, _frames(conv.stride), norm.scale, gradient)
        return dense, parameters

    def first(self, grad: Tensor, grad_out: Tensor) -> Tuple[Tensor, List[Tensor]]:
        """(B, M, L), and the shortcut's (B, O, L'), -> (N, C, T, H, W)."""
        flat, norm, norm_shortcut = self.sheet.flatten(2), self.inner.norm1, self.inner.norm_shortcut
        count, weight = flat.shape[0] * flat.shape[2], self.block.conv_m1.conv.weight
        layer = self._multiply_backward(flat, norm, weight, grad)
        slope, offset = folded.through_statistics(norm, layer, count)
        parameters = _parameters(norm, layer, weight)
        if norm_shortcut is None:
            out = folded.finish(layer.active, flat, norm.scale, slope, offset, add=grad_out)
            return folded.apart(out.view(self.sheet.shape)), parameters
        conv = self.block.conv_w1.conv
        read = folded.every(self.sheet, conv.stride).flatten(2)                 # (B, C, L')
        short = self._multiply_backward(read, norm_shortcut, conv.weight, grad_out)
        slope_short, offset_short = folded.through_statistics(norm_shortcut, short, count)
        out = folded.finish(layer.active, flat, norm.scale, slope + slope_short, offset + offset_short)
        _scatter(out, self.size, conv.stride, norm_shortcut.scale, short.active)
        return folded.apart(out.view(self.sheet.shape)), parameters + _parameters(norm_shortcut, short, conv.weight)


def _parameters(norm: Affine, layer: folded.LayerGradient, weight: Tensor) -> List[Tensor]:
    """Gradients of BatchNorm's weight and bias and of the convolution's weight."""
    weights = layer.weights
    if weights.dim() == 3:
        weights = weights.permute(1, 2, 0).reshape(weight.shape)                        # (K, O, C) -> (O, C, K, 1, 1)
    return [(layer.product * norm.inv_std).squeeze(1), layer.total.squeeze(1), weights]


def _layers(block: Any) -> List[Any]:
    return [block.conv_m1, block.conv_m2, block.conv_m3] + ([block.conv_w1] if block.first else [])


class _Bottleneck(torch.autograd.Function):
    """forward(block, x, *parameters of _layers)."""

    @staticmethod
    def forward(ctx: Any, block: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        out, inner = forward(block, x)
        ctx.block, ctx.norms = block, inner[2:]
        ctx.save_for_backward(x, inner.first, inner.second, *parameters)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, first, second = ctx.saved_tensors[:3]
        clips = folded.clips_together(x)
        backward = _Backward(ctx.block, folded.beside(x, clips), _Inner(first, second, *ctx.norms))
        grad_out = folded.beside(grad, clips).flatten(2)                                # (B, O, L')
        grad, last = backward.last(grad_out)
        grad, middle = backward.middle(grad)
        grad, first_and_shortcut = backward.first(grad, grad_out)
        return (None, grad) + tuple(first_and_shortcut[:3] + middle + last + first_and_shortcut[3:])


def bottleneck(block: Any, x: Tensor) -> Tensor:
    """What block(x) is, where x lies well (network/folded.py): (N, C, T, H, W) -> (N, O, T', H', W')."""
    parameters = [p for layer in _layers(block) for p in (layer.bn.weight, layer.bn.bias, layer.conv.weight)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in [x] + parameters):
        return _Bottleneck.apply(block, x, *parameters)
    if not any(layer.bn.training for layer in _layers(block)):
        return folded_eval.bottleneck(block, x)
    return forward(block, x)[0]
