"""The formats that tools.export writes: from a trained network to the bytes of a file, and back to what they answer.

Optional packages are imported here when they are wanted: onnx, onnxruntime, safetensors.
"""
import importlib.util
import io
import json
import os
import warnings
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import numpy as np
import torch

from data.modalities import MODALITIES
from network import build_network
from network.execution import set_execution
from network.safetensors_file import read_safetensors
from network.weights import load_weights
from tools.trained import Trained, named

OPSETS = range(11, 18)
METADATA_FILE = "metadata.json"  # within a TorchScript file
CHANNELS = {"rgb": ["R", "G", "B"], "flow": ["x", "y"]}
Answer = Callable[[np.ndarray], np.ndarray]  # clips (N, C, T, H, W) float32 -> logits (N, K)


class Shape(NamedTuple):
    """What an ONNX graph is written for; `batch` 0: of any size."""

    batch: int
    opset: int


class Format(NamedTuple):
    """One row of FORMATS: how a file is made, how it is opened again, and the packages that each takes."""

    write: Callable[[Trained, Shape, Dict[str, str]], bytes]
    open: Callable[[bytes, Trained, Shape], Answer]
    to_write: Tuple[str, ...]
    to_open: Tuple[str, ...]


def clip_shape(trained: Trained) -> Tuple[int, int, int, int]:
    """(C, T, H, W) of its clips."""
    shape = trained.geometry
    return MODALITIES[trained.modality].channels, shape.clip_length, shape.crop, shape.crop


def metadata_of(trained: Trained) -> Dict[str, str]:
    """All that is needed to ask the network about a video, each value as JSON. ValueError where classes have no names.
    """
    shape, modality = trained.geometry, MODALITIES[trained.modality]
    content = {
        "schema": 1, "network": trained.name, "class_names": named(trained), "modality": trained.modality,
        "channels": CHANNELS[trained.modality], "clip_length": shape.clip_length, "frame_interval": shape.val_interval,
        "short_side": shape.eval_short_side, "crop_size": shape.crop, "mean": list(modality.mean), "std": modality.std,
        "preprocessing": "from a video's middle clip_length frames, frame_interval apart; short side to short_side, "
                         "the middle crop_size x crop_size; (level / 255 - mean) / std; float32 (N, C, T, H, W)",
        "checkpoint": os.path.basename(trained.path), "producer": "GloRe for PyTorch, torch %s" % torch.__version__}
    return {name: json.dumps(value) for name, value in content.items()}


def missing_packages(names: Tuple[str, ...]) -> List[str]:
    """Those of the packages that are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]


def _write_onnx(trained: Trained, shape: Shape, metadata: Dict[str, str]) -> bytes:
    from tools.export_graph import OPEN, onnx_model
    network: Any = trained.network
    model = onnx_model(network, clip_shape(trained), shape.batch or OPEN, shape.opset, metadata)
    return model.SerializeToString()


def _open_onnx(data: bytes, trained: Trained, shape: Shape) -> Answer:
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def answer(clips: np.ndarray) -> np.ndarray:
        count, batch = len(clips), shape.batch or len(clips)
        clips = clips[np.minimum(np.arange(-(-count // batch) * batch), count - 1)]     # whole batches
        parts = [session.run(None, {session.get_inputs()[0].name: clips[start:start + batch]})[0]
                 for start in range(0, len(clips), batch)]
        return np.concatenate(parts)[:count]
    return answer


def _write_torchscript(trained: Trained, shape: Shape, metadata: Dict[str, str]) -> bytes:
    clip = torch.zeros((2,) + clip_shape(trained))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes are checked once, and that newer ways exist
        program = torch.jit.trace(trained.network, (clip,), check_trace=False)
        buffer, files = io.BytesIO(), {METADATA_FILE: json.dumps({k: json.loads(v) for k, v in metadata.items()})}
        torch.jit.save(program, buffer, _extra_files=_extra_files(files))
    return buffer.getvalue()


def _extra_files(files: Dict[str, str]) -> Any:
    """A dictionary; PyTorch 1.5 wants a map of its own."""
    own = getattr(torch._C, "ExtraFilesMap", None)
    if own is None:
        return files
    found = own()
    for name, text in files.items():
        found[name] = text
    return found


def _open_torchscript(data: bytes, trained: Trained, shape: Shape) -> Answer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _answer_of(torch.jit.load(io.BytesIO(data), map_location="cpu"))


def _write_safetensors(trained: Trained, shape: Shape, metadata: Dict[str, str]) -> bytes:
    from safetensors.numpy import save  # the library's part for torch wants a recent one
    told = ("dataset", "split", "network", "modality")  # no paths of this machine
    config = {name: trained.config[name] for name in told if name in trained.config}
    config.update(clip_length=trained.geometry.clip_length, train_frame_interval=trained.geometry.train_interval,
                  val_frame_interval=trained.geometry.val_interval, crop_size=trained.geometry.crop)
    metadata = dict(metadata, config=json.dumps(config))  # as a checkpoint has it, for network/safetensors_file.py
    return save({name: value.numpy() for name, value in trained.network.state_dict().items()}, metadata)


def _open_safetensors(data: bytes, trained: Trained, shape: Shape) -> Answer:
    network = build_network(trained.name, trained.num_classes, channels=clip_shape(trained)[0])
    report = load_weights(network, read_safetensors(io.BytesIO(data)), "the exported file")
    assert not report.initial and not report.skipped, report.summary()
    set_execution(network, "reference")
    return _answer_of(network.eval())


def _answer_of(module: Any) -> Answer:
    def answer(clips: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return module(torch.from_numpy(clips)).numpy()
    return answer


FORMATS: Dict[str, Format] = {
    "onnx": Format(_write_onnx, _open_onnx, ("onnx",), ("onnxruntime",)),
    "torchscript": Format(_write_torchscript, _open_torchscript, (), ()),
    "safetensors": Format(_write_safetensors, _open_safetensors, ("safetensors",), ()),
}
