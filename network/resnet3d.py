"""Pre-activation 3-D residual networks for clips, with or without Global Reasoning units; each is a row of NETWORKS.

Letters: N batch, C channels, T frames, H and W rows and columns, K classes. Module names are those of the public
checkpoints and must stay.
"""
from collections import OrderedDict
from typing import Dict, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from network import execution
from network.folded_block import bottleneck
from network.folded_eval import stem
from network.glore import BN_EPS, GloReUnit
from network.recomputation import recomputed
from network.workspace import Workspace

Triple = Tuple[int, int, int]
_STEM_WIDTH = 32
_STEM_STRIDE = (1, 4, 4)
_DROPOUT = 0.5


class StageSpec(NamedTuple):
    """One stage: its blocks count from 1; `temporal` blocks convolve over frames; GloRe units follow `glore_after`."""

    name: str
    blocks: int
    mid: int
    out: int
    stride: Triple
    temporal: Tuple[int, ...]
    glore_after: Tuple[int, ...] = ()


class NetworkSpec(NamedTuple):
    """One network: its name, its stages, and the weight file in network/pretrained/ that suits it by default."""

    name: str
    stages: Tuple[StageSpec, ...]
    weights_file: str
    weights_about: str


def _stages(conv4_blocks: int, conv3_glore: Tuple[int, ...], conv4_glore: Tuple[int, ...]) -> Tuple[StageSpec, ...]:
    """The four stages; depth and the places of the GloRe units are what tells the networks apart."""
    odd = tuple(range(1, conv4_blocks + 1, 2))
    return (StageSpec("conv2", 3, 64, 256, (1, 1, 1), (1, 2, 3)),
            StageSpec("conv3", 4, 128, 512, (2, 2, 2), (1, 3), conv3_glore),
            StageSpec("conv4", conv4_blocks, 256, 1024, (1, 2, 2), odd, conv4_glore),
            StageSpec("conv5", 3, 512, 2048, (1, 2, 2), (2,)))


_KINETICS = "Kinetics-400 weights, published with GloRe at https://github.com/facebookresearch/GloRe"
_IMAGENET = "ImageNet 2-D weights, published with GloRe at https://github.com/facebookresearch/GloRe"

NETWORKS: Dict[str, NetworkSpec] = OrderedDict((spec.name, spec) for spec in (
    NetworkSpec("RESNET50_3D_GCN_X5", _stages(6, (1, 3), (1, 3, 5)),
                "resnet50-lite_3d_8x8_w-glore_2-3_ep-0000.pth", _KINETICS),
    NetworkSpec("RESNET101_3D_GCN_X5", _stages(23, (1, 3), (6, 12, 18)),
                "resnet101-lite_3d_8x8_w-glore_2-3_ep-0000.pth", _KINETICS),
    NetworkSpec("RESNET50_3D", _stages(6, (), ()), "resnet50-lite.pth", _IMAGENET),
    NetworkSpec("RESNET101_3D", _stages(23, (), ()), "resnet101-lite.pth", _IMAGENET),
))


def _total_stride() -> Triple:
    """By how much T, H and W shrink from the clip to the last stage: the same in all networks."""
    time, rows, columns = _STEM_STRIDE
    for stage in NETWORKS["RESNET50_3D"].stages:
        time, rows, columns = time * stage.stride[0], rows * stage.stride[1], columns * stage.stride[2]
    return time, rows, columns


def check_clip_size(frames: int, height: int, width: int) -> None:
    """Raises ValueError, naming each size that is too small for the strides, unless the networks take such clips."""
    sizes = (("clip length", frames), ("clip height", height), ("clip width", width))
    units = ("frames", "pixels", "pixels")
    wrong = ["%s %d (at least %d %s)" % (what, size, least, unit)
             for (what, size), least, unit in zip(sizes, _total_stride(), units) if size < least]
    if wrong:
        raise ValueError("too small for the strides of the network: %s; choose a longer --clip-length or a larger "
                         "--crop-size" % ", ".join(wrong))


def last_positions(frames: int, height: int, width: int) -> int:
    """Positions (T * H * W) that are left of a clip in the last stage; each stride rounds up."""
    positions = 1
    for size, stride in zip((frames, height, width), _total_stride()):
        positions *= -(-size // stride)
    return positions


class PreActConv3d(nn.Sequential):
    """BatchNorm, ReLU, convolution without bias ("BN-AC-CONV"): (N, C_in, T, H, W) -> (N, C_out, T', H', W').

    The padding of half the (odd) kernel keeps the size at stride 1.
    """

    def __init__(self, num_in: int, num_out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(OrderedDict((
            ("bn", nn.BatchNorm3d(num_in, eps=BN_EPS)),
            ("relu", nn.ReLU(inplace=True)),
            ("conv", nn.Conv3d(num_in, num_out, kernel, stride, padding, bias=False)),
        )))


class Bottleneck3d(nn.Module):
    """Residual block: over frames (or 1x1x1), over the plane, out; nothing follows the sum.

    (N, num_in, T, H, W) -> (N, num_out, T', H', W'), the stride being conv_m2's. A stage's `first` block also
    convolves its shortcut. With a `folded` workspace it is computed by network/folded_block.py where that can be.
    """

    folded: Optional[Workspace] = None

    def __init__(self, num_in: int, stage: StageSpec, temporal: bool, first: bool) -> None:
        super().__init__()
        stride = stage.stride if first else (1, 1, 1)
        self.conv_m1 = PreActConv3d(num_in, stage.mid, (3, 1, 1) if temporal else (1, 1, 1))
        self.conv_m2 = PreActConv3d(stage.mid, stage.mid, (1, 3, 3), stride)
        self.conv_m3 = PreActConv3d(stage.mid, stage.out, (1, 1, 1))
        if first:
            self.conv_w1 = PreActConv3d(num_in, stage.out, (1, 1, 1), stride)
        self.first = first

    def forward(self, x: Tensor) -> Tensor:
        if self.folded is not None and execution.can_fold(self, x):
            return bottleneck(self, x)
        branch = self.conv_m1(x)                                # (N, mid, T, H, W)
        branch = self.conv_m2(branch)                           # (N, mid, T', H', W')
        branch = self.conv_m3(branch)                           # (N, num_out, T', H', W')
        shortcut = self.conv_w1(x) if self.first else x         # (N, num_out, T', H', W')
        return branch + shortcut


class GlobalMean(nn.Module):
    """Mean over all positions: (N, C, T, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


class Stem(nn.Sequential):
    """(N, 3, T, H, W) -> (N, 32, T, H/4, W/4). With a `folded` workspace network/folded_eval.py evaluates it."""

    folded: Optional[Workspace] = None

    def __init__(self) -> None:
        super().__init__(OrderedDict((
            ("conv", nn.Conv3d(3, _STEM_WIDTH, (3, 5, 5), (1, 2, 2), (1, 2, 2), bias=False)),
            ("bn", nn.BatchNorm3d(_STEM_WIDTH, eps=BN_EPS)),
            ("relu", nn.ReLU(inplace=True)),
            ("max_pool", nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))),
        )))

    def forward(self, clip: Tensor) -> Tensor:
        learns = torch.is_grad_enabled() or any(layer.training for layer in self)
        if self.folded is not None and not learns and execution.can_fold(self, clip):
            return stem(self, clip)
        return super().forward(clip)


class Stage(nn.Sequential):
    """Blocks and GloRe units in a row: (N, num_in, T, H, W) -> (N, out, T', H', W'). With `recompute` only their inputs
    are kept for the backward pass, see network/recomputation.py.
    """

    recompute = False

    def forward(self, x: Tensor) -> Tensor:
        again = self.recompute and torch.is_grad_enabled()
        for part in self:
            x = recomputed(part, x) if again else part(x)
        return x


def _stage(num_in: int, stage: StageSpec) -> Stage:
    """The stage's blocks B01, B02, ..., each GloRe unit B03_extra right after its block."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, stage.blocks + 1):
        name = "B%02d" % number
        layers[name] = Bottleneck3d(num_in, stage, temporal=number in stage.temporal, first=number == 1)
        num_in = stage.out
        if number in stage.glore_after:
            layers[name + "_extra"] = GloReUnit(stage.out, stage.mid)
    return Stage(layers)


class GloReResNet3d(nn.Module):
    """A network of the table: clips (N, 3, T, H, W) -> logits (N, K). T >= 2, H and W >= 32; made for 8x224x224.

    A clip of another shape is a ValueError that says what is wrong.
    """

    def __init__(self, spec: NetworkSpec, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError("num_classes must be at least 1, not %r" % (num_classes,))
        self.name = spec.name
        self.num_classes = num_classes
        conv2, conv3, conv4, conv5 = spec.stages
        self.conv1 = Stem()
        self.conv2 = _stage(_STEM_WIDTH, conv2)
        self.conv3 = _stage(conv2.out, conv3)
        self.conv4 = _stage(conv3.out, conv4)
        self.conv5 = _stage(conv4.out, conv5)
        self.tail = nn.Sequential(OrderedDict((
            ("bn", nn.BatchNorm3d(conv5.out, eps=BN_EPS)),
            ("relu", nn.ReLU(inplace=True)),
        )))
        self.globalpool = GlobalMean()
        self.dropout = nn.Dropout(_DROPOUT)
        self.classifier = nn.Linear(conv5.out, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        if clip.dim() != 5 or clip.shape[1] != 3:
            raise ValueError("the network takes clips (N, 3, T, H, W), not %s" % (tuple(clip.shape),))
        check_clip_size(*clip.shape[2:])
        x = self.conv1(clip)                                    # (N, 32, T, H/4, W/4)
        x = self.conv2(x)                                       # (N, 256, T, H/4, W/4)
        x = self.conv3(x)                                       # (N, 512, T/2, H/8, W/8)
        x = self.conv4(x)                                       # (N, 1024, T/2, H/16, W/16)
        x = self.conv5(x)                                       # (N, 2048, T/2, H/32, W/32)
        x = self.tail(x)                                        # (N, 2048, T/2, H/32, W/32)
        x = self.globalpool(x)                                  # (N, 2048)
        return self.classifier(self.dropout(x))                 # (N, K)
