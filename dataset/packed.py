"""A packed store as a data set: found by looking, opened as the lists of a split, compared with its source."""
import os
from functools import partial
from typing import Iterator, List, Sequence, Tuple

import numpy as np

from data.packed_index import JOURNAL, PackedIndex, check_shards, index_file, read_index, shard_file
from data.packed_store import PackedStore, PackedVideo, PackedVideos
from data.reader import UnreadableClip
from dataset.index import stamp_of
from dataset.rows import DataNotFound
from dataset.workers import Lost, run_all

LOOKED_AT = 200  # videos of the source that are compared at the start of a training


def is_store(root: str) -> bool:
    """Whether a folder is a packed store, finished or not."""
    return os.path.isfile(index_file(root)) or os.path.isfile(os.path.join(root, JOURNAL))


def changed_videos(index: PackedIndex, most: int) -> List[str]:
    """Those of up to `most` videos, spread evenly, whose file is not the one that was packed. A source that lies
    elsewhere now, and videos that were removed, are no change.
    """
    root, kind, changed = index.description.root, index.description.kind, []
    if os.path.isdir(root):
        for video in np.unique(np.linspace(0, len(index.videos) - 1, most).astype(int)).tolist():
            path = os.path.join(root, os.fsdecode(index.names[video]))
            try:
                size, time = stamp_of(path, kind)
            except OSError:
                continue
            if time != index.videos['mtime_ns'][video] or kind == 'video' and size != index.videos['size'][video]:
                changed.append(path)
    return changed


def packed_parts(root: str, name: str, split: int) -> Tuple[List[str], PackedVideos, PackedVideos, List[str]]:
    """Class names, training and test videos of a split of the store `root`, and notes for the log.

    Raises DataNotFound where it is none; ValueError where it is not whole, or of another data set or other splits, or
    its source has changed.
    """
    if not is_store(root):
        raise DataNotFound('%s: no packed store in %s\nMake one with python -m dataset.pack %s --output DIR, and give '
                           'that as --data-root.' % (name, root, name))
    if not os.path.isfile(index_file(root)):
        raise DataNotFound('%s: the packed store in %s is not finished\nGive the same python -m dataset.pack command '
                           'again; it goes on where it stopped.' % (name, root))
    index = read_index(root)
    described = index.description
    if described.dataset != name:
        raise ValueError('--dataset %s: %s is a packed store of %s; give --dataset %s'
                         % (name, root, described.dataset, described.dataset))
    if split not in index.splits:
        raise ValueError('--split %d: the packed store %s has %s' % (split, root, ', '.join(map(str, index.splits))))
    check_shards(root, index)
    refuse_changed(root, changed_videos(index, LOOKED_AT))
    notes = ['%s: packed store %s, frames of at most %d pixels on the short side, JPEG quality %d; packed from %s'
             % (name, root, described.short_side, described.quality, described.root)]
    parts = [PackedVideos(root, index, split, part) for part in (0, 1)]
    without = sum(part.num_unreadable for part in parts)
    if without:
        notes.append('%d of %d videos could not be packed and will count as unreadable'
                     % (without, sum(len(part) for part in parts)))
    return described.class_names, parts[0], parts[1], notes


def refuse_changed(root: str, changed: Sequence[str]) -> None:
    """Raises ValueError where videos have changed since they were packed."""
    if changed:
        raise ValueError('%s does not fit its source any more: %s has changed since it was packed%s; pack again into '
                         'another folder with python -m dataset.pack'
                         % (root, changed[0], ' (and %d more)' % (len(changed) - 1) if len(changed) > 1 else ''))


def damaged_videos(root: str, index: PackedIndex, workers: int) -> Iterator[str]:
    """Reads and decodes every frame of a store; names the videos that are not as they were packed, with the reason."""
    check_shards(root, index)
    store = PackedStore(root, index)
    for shard, result in run_all(partial(_damaged, store, index), range(len(index.shards)), workers, float('inf')):
        yield from ['%s: %s' % (shard_file(root, shard), result.reason)] if isinstance(result, Lost) else result


def _damaged(store: PackedStore, index: PackedIndex, shard: int) -> List[str]:
    found = []
    for video in np.flatnonzero((index.videos['shard'] == shard) & (index.videos['num_frames'] > 0)).tolist():
        path = os.path.join(store.folder, os.fsdecode(index.names[video]))
        first, count = int(index.videos['first'][video]), int(index.videos['num_frames'][video])
        try:
            if any(frame is None for frame in PackedVideo(store, path, shard, first, count).frames(range(count))):
                found.append('%s: a frame cannot be decoded' % path)
        except UnreadableClip as error:
            found.append(str(error))
    return found
