"""The one reader of weight and checkpoint files: plain data or refusal, on every torch version, in both of its formats.

A file is read twice. The first reading builds stand-ins only: it refuses every name but a handful, and every tensor
that does not lie within its own bytes. The second is torch's, restricted to the same names.
"""
import collections
import inspect
import os
import pickle
import struct
import tarfile
import types
import zipfile
from pathlib import Path
from typing import IO, Any, Dict, Tuple, Union

import torch

from network.safetensors_file import is_safetensors, read_safetensors

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ELEMENT_BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_BROKEN = (pickle.UnpicklingError, zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, LookupError,
           AttributeError, TypeError, RuntimeError, AssertionError, ArithmeticError, MemoryError)


class UnsafeFileError(ValueError):
    """A file that is not plain data, or cannot be read as such; the message names it and what was refused."""


class _Refused(Exception):
    """What the first reading found that is not plain data."""


class _StandIn:
    """Takes the place of anything torch would build; the file can neither change it nor look into it."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise _Refused("it sets the state of a tensor or of a type")


class _StorageType(_StandIn):
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Storage(_StandIn):
    __slots__ = ("numel",)

    def __init__(self, numel: int) -> None:
        self.numel = numel


class _Tensor(_StandIn):
    __slots__ = ()


class _StandInDict(collections.OrderedDict):
    """An ordered dictionary; the one attribute a file may give it is the version table of a state dict."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or list(state) != ["_metadata"]:
            raise _Refused("it sets attributes of a dictionary")


class _Maker(_StandIn):
    """Stands for one of the few functions that a file may call."""

    __slots__ = ("make",)

    def __init__(self, make: Any) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)


def _are_counts(values: Any) -> bool:
    return isinstance(values, tuple) and all(type(value) is int and value >= 0 for value in values)


def _check_tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any, hooks: Any,
                  metadata: Any = None) -> _Tensor:
    """Stands for torch._utils._rebuild_tensor_v2: a tensor must lie within its storage and have no hooks."""
    if not isinstance(storage, _Storage) or hooks or metadata:
        raise _Refused("it holds a tensor with hooks or of a foreign kind")
    if not _are_counts((offset,)) or not _are_counts(size) or not _are_counts(stride) or len(size) != len(stride):
        raise _Refused("it holds a tensor of impossible shape")
    numel, end = 1, offset + 1
    for length, step in zip(size, stride):
        numel, end = numel * length, end + (length - 1) * step
    if numel and (end > storage.numel or numel > storage.numel):
        raise _Refused("it holds a tensor that runs past its own data")
    return _Tensor()


def _check_parameter(data: Any, requires_grad: Any, hooks: Any) -> _Tensor:
    """Stands for torch._utils._rebuild_parameter."""
    if not isinstance(data, _Tensor) or hooks:
        raise _Refused("it holds a parameter with hooks or of a foreign kind")
    return data


def _check_size(values: Any = ()) -> Tuple[int, ...]:
    """Stands for torch.Size."""
    if not _are_counts(values):
        raise _Refused("it holds an impossible shape")
    return values


def _stand_ins() -> Dict[Tuple[str, str], Any]:
    """Every name a file may use, with what the first reading puts in its place."""
    names: Dict[Tuple[str, str], Any] = {
        ("collections", "OrderedDict"): _Maker(_StandInDict),
        ("torch", "Size"): _Maker(_check_size),
        ("torch._utils", "_rebuild_tensor_v2"): _Maker(_check_tensor),
        ("torch._utils", "_rebuild_parameter"): _Maker(_check_parameter),
    }
    names.update({("torch", name): _StorageType(name) for name in _ELEMENT_BYTES})
    names.update({("torch", name): _StandIn() for name in _DTYPES})
    return names


class _Scanner(pickle.Unpickler):
    """The first reading. `storages` collects name -> (number of elements, bytes) of what the tensors lie in."""

    def __init__(self, file: IO[bytes], storages: Dict[str, Tuple[int, int]]) -> None:
        super().__init__(file, encoding="utf-8")
        self._names = _stand_ins()
        self._storages = storages
        self._kinds: Dict[str, str] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise _Refused("it names %s.%s" % (module, name))
        return self._names[(module, name)]

    def persistent_load(self, pid: Any) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise _Refused("it refers to something that is not a tensor's data")
        kind, key, location, numel = pid[1:5]
        view = pid[5] if len(pid) == 6 else None
        if (not isinstance(kind, _StorageType) or not isinstance(key, str) or not isinstance(location, str)
                or not _are_counts((numel,)) or view is not None):
            raise _Refused("it describes a tensor's data in a foreign way")
        extent = (numel, numel * _ELEMENT_BYTES[kind.name])
        if self._storages.setdefault(key, extent) != extent or self._kinds.setdefault(key, kind.name) != kind.name:
            raise _Refused("it describes the same data in two ways")
        return _Storage(numel)


def _scan_zip(file: IO[bytes], total: int) -> None:
    """First reading of torch's zip format: <name>/data.pkl and, for each storage, <name>/data/<key>."""
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in records):
            raise _Refused("it is a TorchScript program")
        distinct = {name.lower() for name in records}           # torch's own reader does not tell cases apart
        if len(distinct) != len(archive.infolist()) or any(info.compress_type for info in records.values()):
            raise _Refused("its records are compressed or not unique")
        pickles = [name for name in records if name.split("/", 1)[-1] == "data.pkl"]
        if len(pickles) != 1 or sum(info.file_size for info in records.values()) > total:
            raise _Refused("it is an archive of another kind")
        storages: Dict[str, Tuple[int, int]] = {}
        with archive.open(pickles[0]) as data:
            _Scanner(data, storages).load()
        folder = pickles[0][:-len(".pkl")]
        for key, (_, size) in storages.items():
            if records["%s/%s" % (folder, key)].file_size != size:
                raise _Refused("a tensor's data is not of the size it says")


def _scan_legacy(file: IO[bytes], total: int) -> None:
    """First reading of the older format: magic number, protocol, system, content, list of keys, then the bytes."""
    storages: Dict[str, Tuple[int, int]] = {}
    if _Scanner(file, {}).load() != _LEGACY_MAGIC:
        raise _Refused("it is not a file of torch.save")
    for _ in ("protocol", "system"):
        _Scanner(file, {}).load()
    _Scanner(file, storages).load()
    keys = _Scanner(file, {}).load()
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
        raise _Refused("its list of data is not that of its tensors")
    for key in keys:
        numel, size = storages[key]
        said = int.from_bytes(file.read(8), "little")
        left = total - file.tell()
        if said != numel and left:
            raise _Refused("a tensor's data is not of the size it says")
        if size > left:
            raise EOFError("a tensor's data is missing")
        file.seek(size, os.SEEK_CUR)


def _is_tar(file: IO[bytes]) -> bool:
    """Whether torch would take the file for its oldest format, a tar archive."""
    try:
        tarfile.open(fileobj=file, mode="r:").close()
    except tarfile.TarError:
        return False
    return True


def _scan(file: IO[bytes]) -> None:
    """First reading: raises _Refused, or one of _BROKEN, unless the file is plain data."""
    total = file.seek(0, os.SEEK_END)
    if total == 0:
        raise EOFError("it is empty")
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        _scan_zip(file, total)
        return
    if _is_tar(file):
        raise _Refused("it is a tar archive, torch's format before 0.1.10")
    file.seek(0)
    _scan_legacy(file, total)


class _PlainUnpickler(pickle.Unpickler):
    """The second reading where torch has no restricted one of its own."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _stand_ins():
            raise _Refused("it names %s.%s" % (module, name))
        return getattr({"collections": collections, "torch": torch, "torch._utils": torch._utils}[module], name)


def _load(file: IO[bytes], **options: Any) -> Any:
    return _PlainUnpickler(file, **options).load()


def _has_weights_only() -> bool:
    return "weights_only" in inspect.signature(torch.load).parameters


def _torch_load(file: IO[bytes], map_location: Any) -> Any:
    """Second reading: torch's own, under its restriction to plain data or under ours."""
    if _has_weights_only():
        return torch.load(file, map_location=map_location, weights_only=True)
    plain_pickle = types.SimpleNamespace(__name__="pickle", Unpickler=_PlainUnpickler, load=_load)
    return torch.load(file, map_location=map_location, pickle_module=plain_pickle)


def safe_load(path: Union[str, Path], map_location: Any = "cpu") -> Any:
    """What torch.save wrote, if it is plain data: numbers, strings, lists, tuples, dictionaries and dense tensors. Of a
    safetensors file a dictionary with `state_dict`, on the host.

    UnsafeFileError for anything else, with nothing of the file executed, and for a file that is broken or cut off;
    OSError (FileNotFoundError, ...) where it cannot be opened.
    """
    with open(str(path), "rb") as file:
        try:
            if is_safetensors(file.read(9), os.fstat(file.fileno()).st_size):
                file.seek(0)
                return read_safetensors(file)
            file.seek(0)
            _scan(file)
            file.seek(0)
            return _torch_load(file, map_location)
        except _Refused as reason:
            raise UnsafeFileError("%s is refused: %s. Only plain data and tensors are loaded; ask its author for a "
                                  "state dict saved by torch.save." % (path, reason)) from None
        except _BROKEN as error:
            raise UnsafeFileError("%s cannot be read: it is cut off, broken, or not a file of torch.save (%s: %s)."
                                  % (path, type(error).__name__, str(error)[:200])) from error
