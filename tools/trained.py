"""Opens what was trained: a checkpoint or model.pth of this toolkit, the reference's own, or published weights.

    trained = open_trained("exps/motion10_resnet50_3d_gcn_x5/model.pth")

Says which network it is, of which classes, for which clips. What a file does not tell is taken from the result.json
beside it, else from the options, else an error names the option.
"""
import argparse
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Union

import torch
from torch import nn

from data.modalities import MODALITIES
from data.streams import ClipGeometry
from dataset.lists import read_class_names
from dataset.specs import DATASETS, find_dataset, published_names
from network import NETWORKS, build_network, find_network
from network.resnet3d import check_clip_size
from network.safe_load import safe_load
from network.weights import WeightsError, load_weights, network_of, state_dict_of
from train import device as devices
from train.config import TrainConfig
from train.files import is_sealed

RESULT = "result.json"
KINETICS = "Kinetics400"
NAME_OF = {modality.channels: name for name, modality in MODALITIES.items()}
LENGTHS = ("clip_length", "train_frame_interval", "val_frame_interval", "crop_size")
NUMBERS, NAMES = LENGTHS + ("split", "eval_batch_size"), ("dataset", "data_root", "source")


class Trained(NamedTuple):
    """A network ready to answer, in evaluation mode on its device, and what it was trained for."""

    network: nn.Module
    name: str  # of NETWORKS
    class_names: Optional[List[str]]  # in label order; None where nothing says them
    num_classes: int
    geometry: ClipGeometry
    modality: str
    config: Dict[str, Any]  # of the training, by field of TrainConfig; empty where the file does not say
    path: str
    notes: List[str]  # for the log


def open_trained(path: Union[str, Path], device: Union[str, torch.device] = "auto", network: str = "",
                 classes: str = "", geometry: Optional[Mapping[str, int]] = None,
                 fallback: Optional[Mapping[str, Any]] = None) -> Trained:
    """The network that a file holds. `network` and `classes` stand for what the file lacks: a name of the table; a data
    set's name, whose clips are then taken too, or a file of class names. `geometry` (LENGTHS) goes before the file's
    own, `fallback` behind it.

    FileNotFoundError, UnsafeFileError for what is not plain data, ValueError for a file whose bytes have changed, and
    one that names file and option for the rest.
    """
    path = str(path)
    if not os.path.isfile(path):
        raise FileNotFoundError("%s: no such file; give a checkpoint or model.pth, as of exps/TASK/" % path)
    is_sealed(Path(path))
    content = safe_load(path)
    try:
        weights = state_dict_of(_averaged(content) or content)
        name, num_classes, modality = _kind_of(weights, network)
    except WeightsError as error:
        raise WeightsError("%s: %s" % (path, error)) from None
    told = _told_by(content, path, num_classes)
    config = _checked(dict(told.get("config") or {name: told[name] for name in ("dataset", "split") if name in told}),
                      path)
    class_names, notes = _names(told, classes, num_classes, path)
    if classes and not os.path.isfile(classes):
        fallback = dict(_dataset_of(classes).defaults, **(fallback or {}))
    shape = _geometry(config, dict(geometry or {}), dict(fallback or {}), notes)
    if _averaged(content):
        notes.append("the weights averaged over the steps (--ema-decay), as training evaluates them")
    net = build_network(name, num_classes, channels=MODALITIES[modality].channels)
    _load_whole(net, weights, path)
    chosen = device if isinstance(device, torch.device) else devices.choose_device(device)
    notes.insert(0, "%s: %s for %d classes, %s, clips of %d frames, %d apart, of %d x %d pixels" % (
        path, name, num_classes, modality, shape.clip_length, shape.val_interval, shape.crop, shape.crop))
    return Trained(net.to(chosen).eval(), name, class_names, num_classes, shape, modality, config, path, notes)


def named(trained: Trained) -> List[str]:
    """The names of the classes. ValueError with the remedy where nothing says them."""
    if trained.class_names is None:
        as_many = [name for name in _known() if len(published_names(DATASETS[name]) or ()) == trained.num_classes]
        others = "".join(", or --classes %s if it is of that" % name for name in as_many)
        raise ValueError("%s does not name its %d classes: give --classes FILE, one name a line in label order%s"
                         % (trained.path, trained.num_classes, others))
    return trained.class_names


def _averaged(content: Any) -> Any:
    """The averaged weights of a checkpoint of a run with --ema-decay; None elsewhere."""
    average = content.get("ema") if isinstance(content, dict) else None
    return average.get("weights") if isinstance(average, dict) else None


def _known() -> List[str]:
    return [name for name, spec in DATASETS.items() if spec.classes is not None]


def _kind_of(weights: Mapping[str, Any], typed: str) -> Any:
    """Network, number of classes and modality, as names and shapes tell them."""
    head, stem = weights.get("classifier.weight"), weights.get("conv1.conv.weight")
    if head is None or stem is None or head.dim() != 2:
        raise WeightsError("holds no network of this toolkit: classifier.weight or conv1.conv.weight is missing")
    if stem.dim() == 4:
        raise WeightsError("holds weights of a 2-D network for pictures: train_model.py --pretrained FILE starts from "
                           "them; evaluation wants what was trained on videos")
    found = network_of(weights)
    name = find_network(typed).name if typed else found
    if name is None:
        raise WeightsError("its blocks are those of none of the networks %s; say by --network which one it is"
                           % ", ".join(NETWORKS))
    if found and found != name:
        raise WeightsError("it holds %s: leave --network %s off" % (found, typed))
    if stem.shape[1] not in NAME_OF:
        raise WeightsError("its clips have %d channels; known are %s" % (stem.shape[1], NAME_OF))
    return name, int(head.shape[0]), NAME_OF[stem.shape[1]]


def _told_by(content: Any, path: str, num_classes: int) -> Dict[str, Any]:
    """class_names and config from the checkpoint itself, or from the result.json beside it, where they fit."""
    if _fits(content, num_classes) and "config" in content:
        return content
    beside = os.path.join(os.path.dirname(os.path.abspath(path)), RESULT)
    try:
        with open(beside, encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError):
        return {}
    return result if _fits(result, num_classes) else {}


def _fits(told: Any, num_classes: int) -> bool:
    names = told.get("class_names") if isinstance(told, dict) else None
    return isinstance(names, (list, tuple)) and len(names) == num_classes and isinstance(told.get("config", {}), dict)


def _checked(config: Dict[str, Any], path: str) -> Dict[str, Any]:
    """The configuration. ValueError where what is used of it is not of its kind: anybody may have written the file."""
    for name, kind in [(name, int) for name in NUMBERS] + [(name, str) for name in NAMES]:
        if config.get(name) is not None and not isinstance(config[name], kind):
            raise ValueError("%s: the %s that it was trained with is %r" % (path, name, config[name]))
    return config


def _names(told: Mapping[str, Any], classes: str, num_classes: int, path: str) -> Any:
    """(class names or None, notes)."""
    if classes:
        names = read_class_names(classes) if os.path.isfile(classes) else published_names(_dataset_of(classes))
        if names is None or len(names) != num_classes:
            raise ValueError("--classes %s has %d names, %s has %d classes: take the list that belongs to it"
                             % (classes, len(names or ()), path, num_classes))
        return names, []
    if told.get("class_names"):
        return [str(name) for name in told["class_names"]], []
    names = published_names(DATASETS[KINETICS])
    if names is not None and len(names) == num_classes:
        return names, ["the file names no classes; its %d are taken for those of %s (else: --classes)"
                       % (num_classes, KINETICS)]
    return None, []


def _dataset_of(classes: str) -> Any:
    try:
        return find_dataset(classes)
    except ValueError:
        raise ValueError("--classes %s: neither a file of class names, one a line, nor one of the data sets %s"
                         % (classes, ", ".join(_known()))) from None


def _geometry(config: Mapping[str, Any], typed: Mapping[str, int], fallback: Mapping[str, Any],
              notes: List[str]) -> ClipGeometry:
    """Typed values, else those of the training, else of the data set, else the options' defaults."""
    trained_on = DATASETS.get(str(config.get("dataset")))
    fallback = dict(trained_on.defaults if trained_on else {}, **fallback)
    values = [typed.get(name) or config.get(name) or fallback.get(name) or getattr(TrainConfig, name)
              for name in LENGTHS]
    if not config and not fallback and len(typed) < len(LENGTHS) - 1:
        notes.append("the file does not say which clips it was trained on: the usual ones are taken (else: "
                     "--clip-length, --val-frame-interval, --crop-size)")
    length, train_interval, interval, crop = (int(value) for value in values)
    check_clip_size(length, crop, crop)
    spec = trained_on or DATASETS["UCF101"]
    return ClipGeometry.of(length, train_interval, interval, crop, spec.scale_range, spec.eval_scale)


def _load_whole(net: Any, weights: Mapping[str, Any], path: str) -> None:
    """Loads every tensor; a counter of batches may be missing, as in files of the first PyTorch versions."""
    report = load_weights(net, weights, path)
    lacking = [name for name in report.initial if not name.endswith("num_batches_tracked")]
    if lacking or report.skipped:
        names = lacking or list(report.skipped)
        raise WeightsError("%s does not fit %s: %d tensors are %s, such as %s; give the --network it was made for" % (
            path, net.name, len(names), "missing" if lacking else "of no use there", ", ".join(names[:3])))


def add_checkpoint_options(parser: argparse.ArgumentParser) -> None:
    """What may have to be said about a checkpoint."""
    group = parser.add_argument_group("the checkpoint", "Files of this toolkit say all of this themselves.")
    group.add_argument("--network", default="", metavar="NAME",
                       help="which network it holds: %s [seen from the weights]" % ", ".join(NETWORKS))
    group.add_argument("--classes", default="", metavar="FILE|NAME",
                       help="class names: a file, one a line in label order, or a data set's name (%s)"
                       % ", ".join(_known()))
    group.add_argument("--clip-length", type=int, metavar="N", help="frames of a clip [as trained]")
    group.add_argument("--val-frame-interval", type=int, metavar="N", help="distance between them [as trained]")
    group.add_argument("--crop-size", type=int, metavar="N", help="pixels of a side of the clip [as trained]")


def geometry_typed(options: argparse.Namespace) -> Dict[str, int]:
    """The lengths that were typed. ValueError for one below 1."""
    typed = {name: getattr(options, name) for name in LENGTHS if getattr(options, name, None) is not None}
    for name, value in typed.items():
        if value < 1:
            raise ValueError("--%s %d: must be 1 or more" % (name.replace("_", "-"), value))
    return typed
