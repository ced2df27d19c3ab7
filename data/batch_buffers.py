"""Room for the clips of batches that loader workers fill and the main process reads, made once and used again.

A batch in fresh shared memory costs two page faults for every 4 kB and a file descriptor for every tensor: more than a
JPEG's decoding. Here a worker copies clips into a room that the main process chose, and sends the rest as plain values.
"""
import itertools
import mmap
import weakref
from typing import Any, Callable, List, MutableMapping, Sequence, Set, Tuple

import numpy as np
import torch

from data.clip_dataset import ClipBatch, ClipSample, collate_clips

NO_ROOM = -1
NOTHING = np.empty(0, np.uint8)
_numbers = itertools.count()
# The thread that pins batches gets them from a queue and knows nothing else: it finds the rooms by their number.
_open_rooms: MutableMapping[int, "BatchRooms"] = weakref.WeakValueDictionary()


class BatchRooms:
    """`count` rooms for clips of `shape` (N, T, H, W, C) uint8, in memory that forked workers share.

    A room is free again when nothing refers to the batch in it any more: whoever keeps batches keeps their content.
    """

    def __init__(self, count: int, shape: Tuple[int, ...]) -> None:
        size = int(np.prod(shape))
        self.number = next(_numbers)
        memory = np.frombuffer(mmap.mmap(-1, count * size), np.uint8)  # no page of it exists before it is filled
        self._rooms = memory.reshape((count,) + tuple(shape))  # (rooms, N, T, H, W, C)
        self._free = list(range(count))
        self._taken: Set[int] = set()
        _open_rooms[self.number] = self

    def take(self) -> int:
        """A room for a batch that is about to be asked for, NO_ROOM where all are in use."""
        if not self._free:
            return NO_ROOM
        room = self._free.pop(0)  # in turn: so all their pages exist soon, and a process grows no more
        self._taken.add(room)
        return room

    def reclaim(self) -> None:
        """Frees the rooms of batches that were asked for and never came; none may come any more."""
        self._free.extend(self._taken)
        self._taken.clear()

    def fill(self, room: int, ids: Sequence[Any], fetch: Callable[[Any, np.ndarray], ClipSample]) -> Any:
        """In a worker: the batch of some samples, its clips in the room; a ClipBatch where they are of other shapes."""
        places = self._rooms[room]
        samples = [fetch(sample, place) for sample, place in zip(ids, places)]
        if any(sample.clip.shape != places.shape[1:] for sample in samples):
            return collate_clips(samples)
        for sample, place in zip(samples, places):
            if sample.clip is not place:
                place[...] = sample.clip
        return BatchInRoom(self.number, room, [sample._replace(clip=NOTHING) for sample in samples])

    def open(self, room: int, num_clips: int) -> torch.Tensor:
        """In the main process: the clips in a room (N, T, H, W, C); the room is theirs as long as they are used."""
        clips = self._rooms[room, :num_clips]
        self._taken.discard(room)
        weakref.finalize(clips, self._free.append, room).atexit = False
        return torch.from_numpy(clips)  # the tensor's storage holds the array


class BatchInRoom:
    """A batch on its way to the main process."""

    def __init__(self, rooms: int, room: int, samples: List[ClipSample]) -> None:
        self._rooms, self._room, self._samples = rooms, room, samples

    def open(self) -> ClipBatch:
        """The batch, in the main process."""
        clips = _open_rooms[self._rooms].open(self._room, len(self._samples))
        return collate_clips(self._samples, clips)

    def pin_memory(self) -> ClipBatch:
        """The batch in pinned memory; a DataLoader's thread calls this by its name."""
        fields: Any = self.open()
        pinned: Any = (field.pin_memory() if torch.is_tensor(field) else field for field in fields)
        return ClipBatch(*pinned)
