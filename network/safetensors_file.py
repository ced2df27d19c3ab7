"""Reads the safetensors format: the length of a header, the header as JSON, the bytes of the tensors. Nothing runs.

The format's own rules are held to: each tensor has the bytes that its shape needs, and they follow one another without
a gap to the end of the file. https://github.com/huggingface/safetensors
"""
import json
from typing import IO, Any, Dict, Iterator, Tuple

import numpy as np
import torch

MOST_HEADER = 100000000  # bytes
_LENGTH = 8
_NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
            "I8": "i1", "U8": "u1", "BOOL": "?"}
_TOLD = ("class_names", "config")  # of a checkpoint, where tools.export wrote them


def is_safetensors(start: bytes, total: int) -> bool:
    """Whether the first bytes of a file of `total` bytes are those of the format; no file of torch.save begins so."""
    return start[_LENGTH:_LENGTH + 1] == b"{" and int.from_bytes(start[:_LENGTH], "little") + _LENGTH <= total


def read_safetensors(file: IO[bytes]) -> Dict[str, Any]:
    """{"state_dict": tensors by name}, and class names and configuration where the file tells them. ValueError,
    LookupError, TypeError, AttributeError or ArithmeticError for a file that breaks the rules.
    """
    length = int.from_bytes(file.read(_LENGTH), "little")
    if length > MOST_HEADER:
        raise ValueError("its header has %d bytes" % length)
    header = json.loads(file.read(length).decode("utf-8"))
    metadata = header.pop("__metadata__", {})
    content: Dict[str, Any] = {"state_dict": dict(_tensors(header, file.read()))}
    content.update((name, json.loads(metadata[name])) for name in _TOLD if name in metadata)
    return content


def _tensors(header: Dict[str, Any], data: bytes) -> Iterator[Tuple[str, torch.Tensor]]:
    place = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, kind, (begin, end) = entry["shape"], np.dtype(_NUMBERS[entry["dtype"]]), entry["data_offsets"]
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError("%s: its shape is %r" % (name, shape))
        count = 1
        for size in shape:
            count *= size
        if begin != place or end - begin != count * kind.itemsize or end > len(data):
            raise ValueError("%s: its bytes are not where they should be" % name)
        values = np.frombuffer(data[begin:end], kind)
        if entry["dtype"] == "BF16":  # the upper half of a float32
            yield name, torch.from_numpy((values.astype(np.uint32) << 16).view(np.float32)).bfloat16().reshape(shape)
        else:
            yield name, torch.from_numpy(values.astype(kind.newbyteorder("="))).reshape(shape)
        place = end
    if place != len(data):
        raise ValueError("%d bytes belong to no tensor" % (len(data) - place))
