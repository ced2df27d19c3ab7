"""The residual block as matrix products on the clips where they lie: same function, far fewer passes over memory.

A convolution over frames, or of kernel 1, is a sum of products: tap k multiplies the columns of (C, L) by a matrix
(O, C) and adds them k frames further on. BatchNorm and ReLU are computed for the few columns that a product is about
to read, in a buffer that stays in the cache, and again in the backward pass, so their result is never kept.

Clips with few positions lie side by side, as the columns of one matrix: long products, and few of them.

Letters: N batch, C channels in, O channels out, T frames, L columns (T*H*W, times the clips side by side), K taps.
"""
from typing import Any, Iterator, NamedTuple, Optional, Tuple

import torch
from torch import Tensor

from network.workspace import Workspace

_CHUNK_BYTES = 2 ** 22      # of the buffer, per thread: with its product it fits the cache; long enough for BLAS
_FEW_POSITIONS = 512        # in a clip: fewer columns make slow products
_BUFFERS = Workspace()


def clips_together(x: Tensor) -> int:
    """How many clips of (N, C, T, H, W) lie side by side: all where each alone has too few positions, else one."""
    return x.shape[0] if x[0, 0].numel() < _FEW_POSITIONS else 1


def beside(x: Tensor, clips: int) -> Tensor:
    """(N, C, T, H, W) with `clips` clips side by side: (N / clips, C, T, clips, H, W), contiguous."""
    return x.view((-1, clips) + tuple(x.shape[1:])).permute(0, 2, 3, 1, 4, 5).contiguous()


def apart(x: Tensor) -> Tensor:
    """The clips of beside(...) one by one, as a view: (B, C, T, clips, H, W) -> (B * clips, C, T, H, W)."""
    return x.permute(0, 3, 1, 2, 4, 5).flatten(0, 1)


def lies_well(x: Tensor) -> bool:
    """Whether (N, C, T, H, W) lies clip by clip or with all clips side by side."""
    return x.is_contiguous() or x.permute(1, 2, 0, 3, 4).is_contiguous()


def every(x: Tensor, stride: Tuple[int, ...]) -> Tensor:
    """The positions (B, C, T, clips, H, W) that a kernel of 1 with that stride reads; x itself where it reads all."""
    return x if tuple(stride) == (1, 1, 1) else read(x, stride).contiguous()


def read(x: Tensor, stride: Tuple[int, ...]) -> Tensor:
    """The same as a view."""
    time, rows, columns = stride
    return x[:, :, ::time, :, ::rows, ::columns]


class Affine(NamedTuple):
    """BatchNorm with its statistics known, (C, 1) each: x * scale + shift, scale = weight * inv_std.

    `batch` says whether the statistics are the batch's own, so that gradients flow through them.
    """

    scale: Tensor
    shift: Tensor
    mean: Tensor
    inv_std: Tensor
    batch: bool


class Taps(NamedTuple):
    """A convolution as products: weights (K, O, C), and how many columns each tap looks ahead."""

    weights: Tensor
    ahead: Tuple[int, ...]


def _chunk_values(clip: Tensor) -> int:
    """How many values a chunk has at most."""
    return _CHUNK_BYTES * torch.get_num_threads() // clip.element_size()


def _chunks(clip: Tensor) -> Iterator[Tuple[int, int]]:
    """Ranges of the columns of (C, L), a buffer's worth each."""
    total, most = clip.shape[1], max(1, _chunk_values(clip) // clip.shape[0])
    width = -(-total // -(-total // most))
    return ((begin, min(begin + width, total)) for begin in range(0, total, width))


def _buffer(clip: Tensor) -> Tensor:
    """Room for any chunk of (C, L). It stays: new memory would cost as much as what is written there."""
    return _BUFFERS.empty((max(_chunk_values(clip), clip.shape[0]),), clip)


def _room(buffer: Tensor, like: Tensor) -> Tensor:
    """The buffer's beginning in the shape of a chunk."""
    return buffer[:like.numel()].view(like.shape)


def batch_statistics(x: Tensor) -> Tuple[Tensor, Tensor]:
    """Mean and mean square deviation of each channel of (N, C, L), both (C,).

    Each chunk is centred by its own mean while it is in the cache, and the chunks are pooled (Chan et al. 1979).
    """
    buffer, means, deviations, counts = _buffer(x[0]), [], [], []
    for clip in x:
        for begin, end in _chunks(clip):
            part = clip[:, begin:end]                                   # (C, l)
            mean = part.mean(1, keepdim=True)                           # (C, 1)
            centred = torch.sub(part, mean, out=_room(buffer, part))
            means.append(mean)
            deviations.append(centred.mul_(centred).sum(1))
            counts.append(float(end - begin))
    count = x.new_tensor(counts)                                        # (chunks,)
    every = torch.cat(means, 1)                                         # (C, chunks)
    mean = torch.mv(every, count / count.sum())                         # (C,)
    spread = (every - mean[:, None]).pow_(2)                            # (C, chunks)
    return mean, (torch.stack(deviations, 1).sum(1) + torch.mv(spread, count)) / count.sum()


def track(bn: Any, mean: Tensor, var: Tensor, count: int) -> None:
    """What BatchNorm does to its running statistics in training, given a batch's biased variance."""
    bn.num_batches_tracked.add_(1)
    momentum = 1.0 / int(bn.num_batches_tracked) if bn.momentum is None else bn.momentum
    bn.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
    bn.running_var.mul_(1 - momentum).add_(var, alpha=momentum * count / (count - 1))


def affine(bn: Any, x: Tensor, known: Optional[Tuple[Tensor, Tensor]] = None) -> Affine:
    """The BatchNorm layer on (N, C, L), running statistics brought forward; `known` are the batch's, if at hand."""
    if bn.training:
        mean, var = batch_statistics(x) if known is None else known
        track(bn, mean, var, x.shape[0] * x.shape[2])
    else:
        mean, var = bn.running_mean, bn.running_var
    inv_std = torch.rsqrt(var + bn.eps)
    scale = bn.weight.detach() * inv_std
    shift = bn.bias.detach() - mean * scale
    return Affine(scale[:, None], shift[:, None], mean[:, None], inv_std[:, None], bn.training)


def activate(part: Tensor, norm: Affine, out: Tensor) -> Tensor:
    """ReLU of the normalised columns (C, l), into `out`."""
    return torch.mul(part, norm.scale, out=out).add_(norm.shift).relu_()


def taps_of(weight: Tensor, plane: int) -> Taps:
    """Of a weight (O, C, K, 1, 1) on frames of `plane` positions."""
    count = weight.shape[2]
    matrices = weight.detach().flatten(2).permute(2, 0, 1).contiguous()         # (K, O, C)
    return Taps(matrices, tuple((k - count // 2) * plane for k in range(count)))


def _overlap(begin: int, end: int, ahead: int, total: int) -> Tuple[int, int]:
    """The part of columns begin to end of the input that has an output `ahead` columns before it."""
    low, high = max(begin, ahead), min(end, total + ahead)
    return low, max(low, high)


def multiply(x: Tensor, norm: Affine, taps: Taps, out: Tensor, residual: Optional[Tensor] = None,
             bias: Optional[Tensor] = None) -> Tensor:
    """The layer BatchNorm, ReLU, taps: (N, C, L) -> (N, O, L), into `out`, which it returns.

    A bias (O, 1) may be added; or, with one tap, a residual of the result's shape, which may be `out` itself.
    """
    first = taps.ahead[0] if bias is None else None     # it looks furthest back, so it comes first to a column
    out[:, :, :-taps.ahead[0]].zero_()                  # where it does not come at all
    if bias is not None:
        out.copy_(bias)
    buffer = _buffer(x[0])
    for number, clip in enumerate(x):
        for begin, end in _chunks(clip):
            part = clip[:, begin:end]                                           # (C, l)
            active = activate(part, norm, _room(buffer, part))                  # (C, l)
            for matrix, ahead in zip(taps.weights, taps.ahead):
                low, high = _overlap(begin, end, ahead, clip.shape[1])
                source = active[:, low - begin:high - begin]                    # (C, l')
                target = out[number, :, low - ahead:high - ahead]               # (O, l')
                if residual is not None:
                    torch.addmm(residual[number, :, low:high], matrix, source, out=target)
                elif ahead == first:
                    torch.mm(matrix, source, out=target)
                else:
                    target.addmm_(matrix, source)
    return out


class LayerGradient(NamedTuple):
    """Backward through a layer down to its BatchNorm's output, ReLU's mask applied.

    `active` (N, C, L) is that gradient d; `total` and `product` (C, 1) are the sums of d and of d * (x - mean) over
    N and L; `weights` is the gradient of the convolution's weight.
    """

    active: Tensor
    total: Tensor
    product: Tensor
    weights: Tensor


def multiply_backward(x: Tensor, norm: Affine, taps: Taps, grad: Tensor, result: Tensor) -> LayerGradient:
    """Of multiply(x, norm, taps), given the gradient (N, O, L) of what it made.

    `active` is `result`, an uninitialised tensor like x; `weights` is (K, O, C).
    """
    weights, centre = torch.zeros_like(taps.weights), len(taps.ahead) // 2
    sums = x.new_zeros(2, x.shape[1], 1)
    buffer = _buffer(x[0])
    for number, clip in enumerate(x):
        for begin, end in _chunks(clip):
            part, target = clip[:, begin:end], result[number, :, begin:end]             # (C, l) both
            active = activate(part, norm, _room(buffer, part))                          # (C, l)
            torch.mm(taps.weights[centre].t(), grad[number, :, begin:end], out=target)  # (C, l)
            for tap, ahead in enumerate(taps.ahead):
                low, high = _overlap(begin, end, ahead, clip.shape[1])
                above = grad[number, :, low - ahead:high - ahead]                       # (O, l')
                weights[tap].addmm_(above, active[:, low - begin:high - begin].t())     # (O, C)
                if tap != centre:
                    target[:, low - begin:high - begin].addmm_(taps.weights[tap].t(), above)    # (C, l')
            _mask(target, active)
            _add_sums(sums, target, part, norm, active)
    return LayerGradient(result, sums[0], sums[1], weights)


def _mask(gradient: Tensor, active: Tensor) -> None:
    """Zero where ReLU gave zero, in place."""
    torch.ops.aten.threshold_backward.grad_input(gradient, active, 0, grad_input=gradient)


def _add_sums(sums: Tensor, gradient: Tensor, part: Tensor, norm: Affine, room: Tensor) -> None:
    """Adds what BatchNorm's backward pass needs of the columns (C, l) to (2, C, 1); overwrites `room`."""
    sums[0].add_(gradient.sum(1, keepdim=True))
    sums[1].add_(torch.sub(part, norm.mean, out=room).mul_(gradient).sum(1, keepdim=True))


def mask_and_sum(x: Tensor, norm: Affine, active: Tensor, gradient: Tensor, weights: Tensor) -> LayerGradient:
    """The same for a layer whose convolution the library differentiated; overwrites `active` and masks `gradient`."""
    sums = x.new_zeros(2, x.shape[1], 1)
    for clip, gradient_clip, active_clip in zip(x, gradient, active):
        for begin, end in _chunks(clip):
            target, room = gradient_clip[:, begin:end], active_clip[:, begin:end]       # (C, l) both
            _mask(target, room)
            _add_sums(sums, target, clip[:, begin:end], norm, room)
    return LayerGradient(gradient, sums[0], sums[1], weights)


def through_statistics(norm: Affine, layer: LayerGradient, count: int) -> Tuple[Tensor, Tensor]:
    """(p, q), both (C, 1): the gradient through BatchNorm is d * scale + x * p + q; `count` values had a channel."""
    if not norm.batch:
        return torch.zeros_like(norm.scale), torch.zeros_like(norm.scale)
    slope = -norm.scale * norm.inv_std ** 2 * layer.product / count
    return slope, -norm.scale * layer.total / count - slope * norm.mean


def finish(gradient: Tensor, x: Tensor, scale: Tensor, slope: Tensor, offset: Tensor,
           add: Optional[Tensor] = None) -> Tensor:
    """gradient * scale + x * slope + offset (+ add), all (N, C, L), in place of the gradient."""
    buffer = _buffer(x[0])
    for number, clip in enumerate(x):
        for begin, end in _chunks(clip):
            part, target = clip[:, begin:end], gradient[number, :, begin:end]           # (C, l) both
            room = _room(buffer, part)
            if add is None:
                line = torch.mul(part, slope, out=room)                                 # (C, l)
            else:
                line = torch.addcmul(add[number, :, begin:end], part, slope, out=room)  # (C, l)
            torch.addcmul(line.add_(offset), target, scale, out=target)                 # (C, l)
    return gradient
