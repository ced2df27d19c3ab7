"""The rows of a data set, packed: no Python object a row, so that a million of them weigh little in every worker."""
import os
from typing import NamedTuple, Optional, Sequence, Tuple

import numpy as np

from data.sample_order import Stretches

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
        for path in paths:
            _check_relative(path)
        encoded = [os.fsencode(path) for path in paths]
        self.root = os.path.abspath(root)
        self.kind = kind
        self.labels = np.asarray(labels, dtype=np.int32).reshape(-1)
        if len(self.labels) and self.labels.min() < 0:
            raise ValueError("label %d of %r is negative: labels count from 0"
                             % (self.labels.min(), paths[int(self.labels.argmin())]))
        self._blob = b"".join(encoded)
        self._ends = np.cumsum([0] + [len(item) for item in encoded], dtype=np.int64)
        self._frame_counts = None if frame_counts is None else np.asarray(frame_counts, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.labels)

    def relative(self, index: int) -> str:
        """The row's path below the root, as it was given."""
        if not 0 <= index < len(self):
            raise IndexError("row %d of a list of %d videos" % (index, len(self)))
        return os.fsdecode(self._blob[self._ends[index]:self._ends[index + 1]])

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

    def facts(self, index: int) -> Optional[VideoFacts]:
        """What the index knows of the row's file, None where it knows nothing."""
        return None

    def stretches(self) -> Optional[Stretches]:
        """How the rows lie on disk; None where each has a file of its own."""
        return None


def _check_relative(path: str) -> None:
    if not path or "\0" in path or os.path.isabs(path) or ".." in path.split("/"):
        raise ValueError("path %r in a video list must stay below the data root: no absolute path, no '..'" % path)
