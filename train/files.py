"""Files written whole or not at all: a temporary name beside the file, flushed to the disk, then renamed.

What holds tensors ends in a seal, `sha256:` and the digest of all before it. Readers do not mind it: in torch's zip
format it is the archive's comment, in the older format it follows the last tensor.
"""

import contextlib
import errno
import hashlib
import io
import os
import struct
from pathlib import Path
from typing import Any, List, Sequence, Union

import torch

Bytes = Union[bytes, memoryview]
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MARK = b"\nsha256:"
SEAL_BYTES = len(_MARK) + 64 + 1
_END_OF_ZIP, _END_OF_ZIP_BYTES = b"PK\x05\x06", 22  # the archive's last record; its last two bytes count the comment's
_AT_ONCE = 1 << 22


def write_atomically(data: Union[Bytes, Sequence[Bytes]], path: Path) -> None:
    """Writes a file whole, and its folder's entry with it. OSError where it cannot be: what was there is untouched.

    A full disk says so, before anything is written where the file system tells.
    """
    parts = [data] if isinstance(data, (bytes, memoryview)) else data
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))
    size = sum(len(part) for part in parts)
    try:
        _check_room(path.parent, size)
        with open(str(temporary), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
        _flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if error.errno in _NO_ROOM:
            raise OSError(error.errno, "no room to write %.0f MB; free some, or choose another disk (of a run: "
                          "--model-dir). What was there before is untouched" % (size / 1e6), str(path)) from error
        raise


def _check_room(folder: Path, size: int) -> None:
    disk = os.statvfs(str(folder))
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _flush_folder(folder: Path) -> None:
    """Makes a rename last through a power cut, where the file system can."""
    handle = os.open(str(folder), os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> List[Path]:
    """Removes what killed processes left of files that they were writing here; returns what it was."""
    found = sorted(folder.glob(".*.tmp")) if folder.is_dir() else []
    for path in found:
        path.unlink()
    return found


def save_tensors(content: Any, path: Path) -> None:
    """torch.save, sealed, by way of memory: a full disk is an error, and never a torn file or the process's end."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with buffer.getbuffer() as data:
        end = data[-_END_OF_ZIP_BYTES:]
        if end[:4] == _END_OF_ZIP and end[-2:] == b"\0\0":
            end[-2:] = struct.pack("<H", SEAL_BYTES)
        write_atomically([data, _MARK + hashlib.sha256(data).hexdigest().encode() + b"\n"], path)


def is_sealed(path: Path) -> bool:
    """Whether the file ends in a seal. ValueError where it does, and is not what was sealed."""
    digest = hashlib.sha256()
    with open(str(path), "rb") as file:
        left = file.seek(0, os.SEEK_END) - SEAL_BYTES
        if left < 0:
            return False
        file.seek(left)
        seal = file.read()
        if not seal.startswith(_MARK):
            return False
        file.seek(0)
        while left > 0:
            part = file.read(min(left, _AT_ONCE))
            digest.update(part)
            left -= len(part) or left
    if seal != _MARK + digest.hexdigest().encode() + b"\n":
        raise ValueError("%s is damaged: its bytes are not those that were written" % path)
    return True
