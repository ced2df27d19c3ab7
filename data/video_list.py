"""The rows of a data set, packed: no Python object a row, so that a million of them weigh little in every worker."""
import contextlib
import hashlib
import itertools
import os
import tempfile
from array import array
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.sample_order import Stretches

RESTING_BYTES = 1 << 25  # from which on a list lies in a file
KINDS = ("video", "rawframes", "packed")


class VideoFacts(NamedTuple):
    """What the index knows of one video file."""

    num_frames: int  # frames that decode correctly, from frame 0 on
    size: int  # bytes and
    mtime_ns: int  # time of change of the file as it was examined
    key_frames: Tuple[int, ...]  # frames at which a seek was seen to be exact; empty: read from the start


class VideoList:
    """Rows of (path below root, label), in the order given. Read-only, picklable, constant time a row.

    `kind` says what a path leads to: 'video' (one file), 'rawframes' (a folder of numbered JPEG files) or 'packed' (see
    data/packed_store.py).
    `frame_counts`, where given, are trusted frame counts, 0 for unknown.
    Raises ValueError for a path that is empty, absolute or climbs with '..', and for a negative label.
    """

    def __init__(self, root: str, paths: Sequence[str], labels: Sequence[int], kind: str = "video",
                 frame_counts: Optional[Sequence[int]] = None) -> None:
        if kind not in KINDS:
            raise ValueError("kind of a video list is one of %s, not %r" % (", ".join(KINDS), kind))
        if len(paths) != len(labels) or (frame_counts is not None and len(frame_counts) != len(paths)):
            raise ValueError("a video list needs one label (and one frame count) for each path: got %d paths, %d labels"
                             % (len(paths), len(labels)))
        blob = _joined(paths)
        self._blob = np.frombuffer(blob, np.uint8)
        self.root = os.path.abspath(root)
        self.kind = kind
        self.labels = np.asarray(labels, dtype=np.int32).reshape(-1)
        if len(self.labels) and self.labels.min() < 0:
            raise ValueError("label %d of %r is negative: labels count from 0"
                             % (self.labels.min(), paths[int(self.labels.argmin())]))
        ends = np.flatnonzero(self._blob == 0)
        self._ends = ends.astype(np.uint32 if len(blob) < 1 << 32 else np.int64)
        self._frame_counts = None if frame_counts is None else np.asarray(frame_counts, dtype=np.int32)
        self._facts: Optional[_PackedFacts] = None

    def __len__(self) -> int:
        return len(self.labels)

    def relative(self, index: int) -> str:
        """The row's path below the root, as it was given."""
        if not 0 <= index < len(self):
            raise IndexError("row %d of a list of %d videos" % (index, len(self)))
        start = int(self._ends[index - 1]) + 1 if index else 0
        return os.fsdecode(self._blob[start:int(self._ends[index])].tobytes())

    def path(self, index: int) -> str:
        """The row's absolute path."""
        return os.path.join(self.root, self.relative(index))

    def label(self, index: int) -> int:
        return int(self.labels[index])

    def num_frames(self, index: int) -> Optional[int]:
        """The list's own frame count of the row, None where it says none."""
        if self._frame_counts is None or self._frame_counts[index] <= 0:
            return None
        return int(self._frame_counts[index])

    def digest(self) -> str:
        """SHA-256 of the rows, paths below the root and labels in their order, as 64 hexadecimal digits."""
        digest = hashlib.sha256(self._blob.data)
        digest.update(b"\n")
        digest.update(np.ascontiguousarray(self.labels, "<i4").data)
        return digest.hexdigest()

    def facts(self, index: int) -> Optional[VideoFacts]:
        """What the index knows of the row's file, None where it knows nothing."""
        return None if self._facts is None else self._facts.row(index)

    def stretches(self) -> Optional[Stretches]:
        """How the rows lie on disk; None where each has a file of its own."""
        return None

    def learn(self, index: int, facts: VideoFacts) -> None:
        """Takes facts of a row, in place of earlier ones.

        Raises OverflowError for what no file has: negative numbers, over int32 for frames, int64 for size and time.
        """
        if self._facts is None:
            self._facts = _PackedFacts(len(self))
        self._facts.put(index, facts)

    def rest(self) -> None:
        """Puts what a long list holds into a file without a name, from which the system fetches the rows that are read;
        afterwards it learns nothing. A short one, and one that no disk has room for, stays in memory.
        """
        holders = [self] if self._facts is None else [self, self._facts]
        held = [(holder, name) for holder in holders for name, value in vars(holder).items()
                if isinstance(value, (np.ndarray, array))]
        arrays = [np.asarray(getattr(holder, name)) for holder, name in held]
        if sum(values.nbytes for values in arrays) < RESTING_BYTES:
            return
        with contextlib.suppress(OSError):
            for (holder, name), values in zip(held, _in_a_file(arrays)):
                setattr(holder, name, values)

    @property
    def num_known(self) -> int:
        """Of how many rows there are facts."""
        return 0 if self._facts is None else int((self._facts.num_frames >= 0).sum())


class _PackedFacts:
    """VideoFacts of some rows in a few arrays; the key frames of all of them lie in one."""

    def __init__(self, num_rows: int) -> None:
        self.num_frames = np.full(num_rows, -1, np.int32)
        self.sizes, self.times = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
        self.starts, self.lengths = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int32)
        self.key_frames: Any = array("i")

    def put(self, row: int, facts: VideoFacts) -> None:
        count, size, time, keys = facts
        if not (0 <= count < 1 << 31 and 0 <= size < 1 << 63 and abs(time) < 1 << 63):  # NumPy 1 would wrap them
            raise OverflowError("facts of row %d: %d frames, %d bytes, time %d" % (row, count, size, time))
        start = len(self.key_frames)
        self.key_frames.extend(keys)
        self.num_frames[row], self.sizes[row], self.times[row] = count, size, time
        self.starts[row], self.lengths[row] = start, len(keys)

    def row(self, index: int) -> Optional[VideoFacts]:
        count = int(self.num_frames[index])
        if count < 0:
            return None
        start = int(self.starts[index])
        keys = self.key_frames[start:start + int(self.lengths[index])]
        return VideoFacts(count, int(self.sizes[index]), int(self.times[index]), tuple(keys.tolist()))


def _in_a_file(arrays: Sequence[np.ndarray]) -> List[np.ndarray]:
    """The same arrays, read-only, in a file that goes when they go. OSError where there is no room for it."""
    with tempfile.TemporaryFile(prefix="glore_list_") as file:
        starts = []
        for values in arrays:
            file.write(bytes(-file.tell() % 8))
            starts.append(file.tell())
            file.write(values.data)
        file.flush()
        whole = np.memmap(file, np.uint8, "r").view(np.ndarray)
    return [whole[start:start + values.nbytes].view(values.dtype) for start, values in zip(starts, arrays)]


def _joined(paths: Sequence[str]) -> bytes:
    """The paths, a zero byte behind each. ValueError for the first that leaves the root."""
    text = "\0".join(itertools.chain(("",), paths, ("",)))
    if ".." in text or "\0/" in text or "\0\0" in text or text.count("\0") != len(paths) + 1:  # else all are fine
        for path in paths:
            _check_relative(path)
    return os.fsencode(text[1:])


def _check_relative(path: str) -> None:
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError("path %r in a video list must stay below the data root: no absolute path, no '..'" % path)
