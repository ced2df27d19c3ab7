"""Initial values and pretrained files: every case of what a file may hold, and a report by name.

A file for RGB starts a network for flow by its first convolution's mean over the channels: the cross-modality
pre-training of Wang et al., Temporal Segment Networks, ECCV 2016, arXiv 1608.00859.
"""
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from network.glore import GloReUnit
from network.resnet3d import NETWORKS, GloReResNet3d
from network.safe_load import safe_load

PRETRAINED_FOLDER = Path(__file__).resolve().parent / "pretrained"
_CONTAINERS = ("state_dict", "model")
_PREFIX = "module."
_HEAD = "classifier."
_BLOCK = re.compile(r"(conv\d\.B\d+(?:_extra)?)\.")
_STEM = "conv1.conv.weight"
_RGB = 3  # channels


class WeightsError(ValueError):
    """A weight file that does not fit the network."""


class WeightsNotFound(FileNotFoundError):
    """No weight file where one is wanted; the message's two lines say what to get and where to put it."""


class LoadReport(NamedTuple):
    """What became of a weight file: names loaded, names of the file skipped (with the reason), names left initial, and
    what was done to loaded ones that did not fit as they were but for inflation.
    """

    path: str
    loaded: Tuple[str, ...]
    skipped: Dict[str, str]
    initial: Tuple[str, ...]
    adapted: Dict[str, str]

    def summary(self) -> str:
        """Lines for the log: counts, then every module that was skipped or left at its initial value."""
        total = len(self.loaded) + len(self.initial)
        lines = ["%s: %d of %d tensors loaded" % (self.path, len(self.loaded), total)]
        lines += ["  adapted (%s): %s" % (how, name) for name, how in self.adapted.items()]
        for reason in sorted(set(self.skipped.values())):
            names = [name for name, why in self.skipped.items() if why == reason]
            lines.append("  skipped (%s): %s" % (reason, _by_module(names)))
        if self.initial:
            lines.append("  left at the initial value: %s" % _by_module(self.initial))
        return "\n".join(lines)


def _by_module(names: Sequence[str]) -> str:
    """Names in short: a graph unit counts as one, `conv3.B01_extra.* (13)`."""
    groups: Dict[str, List[str]] = OrderedDict()
    for name in names:
        unit = name.split("_extra.")[0] + "_extra.*" if "_extra." in name else name
        groups.setdefault(unit, []).append(name)
    return ", ".join("%s (%d)" % (unit, len(held)) if unit.endswith("*") else unit for unit, held in groups.items())


def initialize(net: nn.Module) -> None:
    """From scratch: Xavier-uniform weights, zero biases, BatchNorm at 1 and 0; every GloRe unit is the identity."""
    for module in net.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            module.reset_running_stats()
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, GloReUnit):
            nn.init.zeros_(module.blocker.weight)


def pretrained_path(network_name: str) -> Path:
    """Where the network's own pretrained file belongs, whether or not it is there."""
    return PRETRAINED_FOLDER / NETWORKS[network_name.upper()].weights_file


def state_dict_of(obj: Any) -> Dict[str, Any]:
    """The weights in what a file held: a bare dictionary, or one under `state_dict` or `model`; without `module.`.

    WeightsError where there is no dictionary of tensors by name.
    """
    for container in _CONTAINERS:
        if isinstance(obj, Mapping) and isinstance(obj.get(container), Mapping):
            obj = obj[container]
    if not isinstance(obj, Mapping) or not any(isinstance(value, Tensor) for value in obj.values()):
        raise WeightsError("holds no state dict: wanted is a dictionary from names to tensors, bare or under one of "
                           "the keys %s" % ", ".join(_CONTAINERS))
    return OrderedDict((_without_prefix(str(name)), value) for name, value in obj.items())


def _without_prefix(name: str) -> str:
    return name[len(_PREFIX):] if name.startswith(_PREFIX) else name


def _fit(name: str, source: Any, target: Tensor) -> Tensor:
    """The file's tensor in the shape of the network's; a 4-D weight is inflated over the kernel's frames.

    (O, I, H, W) -> (O, I, T, H, W), divided by T, so that a clip of equal frames gives what the frame gave.
    """
    if not isinstance(source, Tensor) or source.is_floating_point() != target.is_floating_point():
        raise WeightsError("%s: the file holds %s where the network has %s"
                           % (name, getattr(source, "dtype", type(source).__name__), target.dtype))
    if source.shape == target.shape:
        return source
    if source.dim() == 4 and target.dim() == 5 and source.shape == target.shape[:2] + target.shape[3:]:
        frames = target.shape[2]
        return (source / frames).unsqueeze(2).expand_as(target)         # (O, I, 1, H, W) -> (O, I, T, H, W)
    raise WeightsError("%s: the file's shape is %s, the network's %s"
                       % (name, tuple(source.shape), tuple(target.shape)))


def _is_other_head(name: str, source: Any, target: Tensor) -> bool:
    """Whether this is a classifier that differs from the network's in the number of classes alone."""
    return (name.startswith(_HEAD) and isinstance(source, Tensor) and source.dim() == target.dim()
            and source.shape[1:] == target.shape[1:] and source.shape != target.shape)


def _for_other_channels(source: Tensor, channels: int) -> Tensor:
    """The first convolution of an RGB network, averaged over its channels, for each of `channels` others.

    (O, 3, ...) -> (O, channels, ...). WeightsError for a file of other channels than RGB's.
    """
    if source.shape[1] != _RGB:
        raise WeightsError("%s: the file is of a network for clips of %d channels (flow has 2), this one takes %d; see "
                           "--modality" % (_STEM, source.shape[1], channels))
    shape = (source.shape[0], channels) + tuple(source.shape[2:])
    return source.mean(1, keepdim=True).expand(shape)                   # (O, channels, ...)


def _has_other_channels(name: str, source: Any, target: Tensor) -> bool:
    return (name == _STEM and isinstance(source, Tensor) and source.is_floating_point() and source.dim() in (4, 5)
            and source.shape[1] != target.shape[1])


def _match(weights: Mapping, target: Dict[str, Tensor]) -> Tuple[Dict[str, Tensor], Dict[str, str], Dict[str, str]]:
    """What of the file goes into the network, in its shapes; what is skipped, and why; what is adapted, and how.
    Changes nothing.
    """
    matched: Dict[str, Tensor] = OrderedDict()
    skipped: Dict[str, str] = OrderedDict()
    adapted: Dict[str, str] = OrderedDict()
    wrong: List[str] = []
    for name, source in weights.items():
        if name not in target:
            skipped[name] = "not in this network"
        elif _is_other_head(name, source, target[name]):
            skipped[name] = "for %d classes, not %d" % (source.shape[0], target[name].shape[0])
        else:
            try:
                if _has_other_channels(name, source, target[name]):
                    source = _for_other_channels(source, target[name].shape[1])
                    adapted[name] = "mean over %d channels, for each of %d" % (_RGB, target[name].shape[1])
                matched[name] = _fit(name, source, target[name])
            except WeightsError as error:
                wrong.append(str(error))
    if wrong:
        raise WeightsError("%d tensors do not fit this network: %s" % (len(wrong), "; ".join(wrong[:5])))
    if not matched:
        raise WeightsError("none of its %d names is in this network; the first are %s"
                           % (len(weights), ", ".join(list(weights)[:3])))
    return matched, skipped, adapted


def network_of(weights: Mapping) -> Optional[str]:
    """Which network of the table has exactly the blocks and graph units that the names speak of; None: none has."""
    held = {found.group(1) for found in map(_BLOCK.match, weights) if found}
    for spec in NETWORKS.values():
        blocks = {"%s.B%02d" % (stage.name, number) for stage in spec.stages for number in range(1, stage.blocks + 1)}
        units = {"%s.B%02d_extra" % (stage.name, number) for stage in spec.stages for number in stage.glore_after}
        if held == blocks | units:
            return spec.name
    return None


def find_weights_file(network_name: str, wanted: Union[bool, str, Path]) -> Path:
    """The network's default file (True) or the one named; WeightsNotFound, in two lines, where it is not there."""
    spec = NETWORKS[network_name.upper()]
    default = pretrained_path(spec.name)
    path = default if wanted is True else Path(str(wanted))
    if path.is_file():
        return path
    if path == default:
        raise WeightsNotFound("%s needs its pretrained file %s (%s).\nPut it at %s, or name another file with "
                              "--pretrained PATH, or leave --pretrained off to train from scratch."
                              % (spec.name, spec.weights_file, spec.weights_about, path))
    raise WeightsNotFound("There is no weight file %s; --pretrained wants a file of weights for %s.\nCheck the path, "
                          "or give --pretrained alone, which takes %s." % (path, spec.name, default))


def load_pretrained(net: GloReResNet3d, path: Union[str, Path]) -> LoadReport:
    """Loads what fits from the file; all or nothing: on an error the network is unchanged.

    WeightsNotFound where there is no file, UnsafeFileError where it is not plain data, WeightsError where a shape
    differs other than by inflation, the number of classes or RGB's channels where flow's are wanted. What was not in
    the file keeps its value.
    """
    path = find_weights_file(net.name, path)
    return load_weights(net, safe_load(str(path)), path)


def load_weights(net: GloReResNet3d, content: Any, path: Union[str, Path]) -> LoadReport:
    """The same with what `path` held."""
    target = net.state_dict()
    try:
        matched, skipped, adapted = _match(state_dict_of(content), target)
    except WeightsError as error:
        raise WeightsError("%s: %s. Choose the --network the file was made for, or another file."
                           % (path, error)) from None
    with torch.no_grad():
        for name, source in matched.items():
            target[name].copy_(source)
    initial = tuple(name for name in target if name not in matched)
    return LoadReport(str(path), tuple(name for name in target if name in matched), skipped, initial, adapted)
