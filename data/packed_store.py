"""Clips from a packed store: JPEG frames in a few large shard files, found through a table and read by offset.

A process opens shards as it needs them and reads a frame at a time, so that neither memory nor the number of open files
grows; a mapped file would be as fast, but a failing disk would then end the process. Every frame's checksum is compared
when it is read. T frame, H, W, C = R, G, B.
"""
import os
import zlib
from collections import OrderedDict
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from data.clip_readers import JPEG_BLUE_FIRST, decode_jpeg
from data.packed_index import FRAME, PackedIndex, shard_file
from data.reader import Frames, Reader, UnreadableClip, readable_before
from data.sample_order import Stretches
from data.video_list import VideoList

MOST_OPEN = 64  # shards open at once in a process
MOST_FRAME_BYTES = 1 << 27


class PackedVideos(VideoList):
    """Rows of one part of a split of a store; a row's path names the store and the video in it."""

    def __init__(self, folder: str, index: PackedIndex, split: int, part: int) -> None:
        rows = index.splits[split][part]
        videos = rows["video"]
        super().__init__(folder, [os.fsdecode(index.names[video]) for video in videos.tolist()], rows["label"].tolist(),
                         "packed", index.videos["num_frames"][videos])
        self._places = index.videos[["shard", "num_frames", "first"]][videos]
        self._problems = {row: index.problems[video] for row, video in enumerate(videos.tolist())
                          if video in index.problems}
        self.num_unreadable = int((self._places["num_frames"] == 0).sum())
        self._order = np.argsort(videos, kind="stable").astype(np.int32)
        self._store = PackedStore(folder, index)

    def open(self, row: int) -> "PackedVideo":
        """The row's frames. Raises UnreadableClip for a video that could not be packed, with the reason of then."""
        shard, num_frames, first = self._places[row].tolist()
        if not num_frames:
            raise UnreadableClip(self.path(row), "when it was packed: " + self._problems.get(row, "no frames"))
        return PackedVideo(self._store, self.path(row), shard, first, num_frames)

    def stretches(self) -> Stretches:
        """Where the rows lie: of each shard those that follow one another, shard after shard."""
        shards = self._places["shard"][self._order]
        return Stretches(self._order, np.append(np.flatnonzero(np.diff(shards)) + 1, len(shards)))


class PackedStore:
    """The shards of a store, opened when they are first needed, in each process for itself."""

    def __init__(self, folder: str, index: PackedIndex) -> None:
        self.folder = os.path.abspath(folder)
        self._shards = index.shards
        self._opened = OrderedDict()  # type: OrderedDict[int, Any]

    def __getstate__(self) -> Dict[str, Any]:
        return dict(self.__dict__, _opened=OrderedDict())

    def frames_of(self, shard: int, first: int, wanted: Sequence[int]) -> Tuple[int, List[Tuple[int, int, int]]]:
        """An open shard's descriptor, and (offset, size, checksum) of frames by their rising places after `first`.

        OSError where the shard cannot be read; ValueError where it is not the one of the index.
        """
        file = self._file(shard)
        table = int(self._shards["table"][shard])
        start = first + wanted[0]
        length = (wanted[-1] + 1 - wanted[0]) * FRAME.itemsize
        data = os.pread(file, length, table + start * FRAME.itemsize)
        if len(data) != length:
            raise ValueError("its table is cut off")
        rows = np.frombuffer(data, FRAME)[np.asarray(wanted) - wanted[0]].tolist()
        for offset, size, _ in rows:
            if not (0 <= offset <= table - size and 0 < size <= MOST_FRAME_BYTES):
                raise ValueError("a frame lies outside of it")
        return file, rows

    def _file(self, shard: int) -> int:
        opened = self._opened.get(shard)
        if opened is None:
            opened = open(shard_file(self.folder, shard), "rb", buffering=0)
            self._opened[shard] = opened
            if len(self._opened) > MOST_OPEN:
                self._opened.popitem(last=False)[1].close()
        self._opened.move_to_end(shard)
        size, expected = os.fstat(opened.fileno()).st_size, int(self._shards["bytes"][shard])
        if size != expected:
            raise ValueError("it has %d bytes, not %d" % (size, expected))
        return opened.fileno()


class PackedVideo(Reader):
    """The frames of one video of a store."""

    blue_first = JPEG_BLUE_FIRST

    def __init__(self, store: PackedStore, path: str, shard: int, first: int, num_frames: int) -> None:
        self.path, self.num_frames = path, num_frames
        self._store, self._shard, self._first = store, shard, first

    def frames(self, wanted: Sequence[int]) -> Frames:
        """Reads and decodes one after the other."""
        try:
            file, rows = self._store.frames_of(self._shard, self._first, wanted)
        except (OSError, ValueError) as error:
            raise self._unreadable(0, str(error))
        for index, (offset, size, checksum) in zip(wanted, rows):
            with readable_before(index, self.path):
                image = self._frame(file, index, offset, size, checksum)
            yield image

    def _frame(self, file: int, index: int, offset: int, size: int, checksum: int) -> Optional[np.ndarray]:
        try:
            data = os.pread(file, size, offset)
        except OSError as error:
            raise self._unreadable(index, str(error))
        if len(data) != size or zlib.crc32(data) != checksum:
            raise self._unreadable(index, "frame %d is damaged" % index)
        return decode_jpeg(data, self.path)

    def _unreadable(self, index: int, reason: str) -> UnreadableClip:
        name = os.path.basename(shard_file("", self._shard))
        return UnreadableClip(self.path, "%s: %s" % (name, reason), index)
