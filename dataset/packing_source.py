"""What of a data set is packed, and in which order it will lie in the store."""
import hashlib
import os
from typing import Dict, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from data.packed_index import ROW, Description
from data.randomness import random_state
from data.video_list import VideoFacts, VideoList
from dataset.index import prefix_of, stamp_of
from dataset.packed import is_store
from dataset.packing import Source
from dataset.rows import DataNotFound
from dataset.specs import PROJECT, DatasetSpec, VideoSet, load_videos


class Options(NamedTuple):
    """How it is packed: most pixels of the short side, JPEG quality, most MiB of a shard."""

    short_side: int
    quality: int
    shard_size: int


def collect(spec: DatasetSpec, root: Optional[str], split: Optional[int], source: str,
            options: Options) -> Tuple[Source, List[str]]:
    """All videos of a split, or of all splits that are there, and notes for the user. Errors of `load_videos`."""
    root = os.path.abspath(root or os.path.join(PROJECT, spec.default_root))
    if is_store(root):
        raise ValueError('--data-root %s is a packed store already: give the data set that it was packed from' % root)
    sets, notes = _load(spec, root, split, source)
    first = next(iter(sets.values()))
    known = {path: part_knows for videos in sets.values() for part in (videos.train, videos.test)
             for path, part_knows in _known(root, part)}
    order = {path: video for video, path in enumerate(_packing_order(root, first, list(known)))}
    splits = {number: (_rows(root, videos.train, order), _rows(root, videos.test, order))
              for number, videos in sets.items()}
    names = [os.fsencode(path) for path in order]
    sizes, times = _stamps(root, list(order), first.train.kind)
    listed = [b'\0'.join(names), '\0'.join(first.class_names).encode('utf-8')]
    listed += [rows.tobytes() for number in splits for rows in splits[number]]
    fingerprint = {'options': 'short side %d, quality %d, shards of %d MiB' % options, 'decoder': cv2.__version__,
                   'lists': _digest(listed), 'videos': _digest([sizes.tobytes(), times.tobytes()])}
    description = Description(spec.name, first.class_names, options.short_side, options.quality, root,
                              first.train.kind, fingerprint)
    return Source(description, names, [known[path] for path in order], sizes, times, splits), notes


def _load(spec: DatasetSpec, root: str, split: Optional[int], source: str) -> Tuple[Dict[int, VideoSet], List[str]]:
    """The splits by number; those without lists of their own are left out with a note."""
    sets: Dict[int, VideoSet] = {}
    notes: List[str] = []
    for number in [split] if split else range(1, spec.num_splits + 1):
        try:
            videos = load_videos(spec, root, number, source)
        except DataNotFound as error:
            if not sets and (split or number == spec.num_splits):
                raise
            notes.append('split %d is left out: %s' % (number, str(error).split('\n')[0]))
            continue
        sets[number] = videos
        notes += [note for note in videos.notes if note not in notes]
    return sets, notes


def _known(root: str, videos: VideoList) -> List[Tuple[str, Tuple[int, Optional[VideoFacts]]]]:
    """(path below the root, what is known) of each row; see `Source`."""
    prefix = prefix_of(root, videos.root)
    return [(prefix + videos.relative(row), (videos.num_frames(row) or 0, videos.facts(row)))
            for row in range(len(videos))]


def _packing_order(root: str, first: VideoSet, everything: List[str]) -> List[str]:
    """Training videos mixed, so that even a sequential read meets all classes; then the others as they are listed."""
    train = list(dict(_known(root, first.train)))
    mixed = [train[place] for place in random_state(0, 0, 0, 'pack').permutation(len(train))]
    return list(dict.fromkeys(mixed + list(dict(_known(root, first.test))) + everything))


def _rows(root: str, videos: VideoList, order: Dict[str, int]) -> np.ndarray:
    rows = np.zeros(len(videos), ROW)
    rows['video'] = [order[path] for path, _ in _known(root, videos)]
    rows['label'] = videos.labels
    return rows


def _stamps(root: str, paths: List[str], kind: str) -> Tuple[np.ndarray, np.ndarray]:
    """Bytes and time of change of each; -1 where it has gone."""
    sizes, times = np.full(len(paths), -1, np.int64), np.zeros(len(paths), np.int64)
    for video, path in enumerate(paths):
        try:
            sizes[video], times[video] = stamp_of(os.path.join(root, path), kind)
            if kind == 'rawframes':
                with os.scandir(os.path.join(root, path)) as entries:
                    sizes[video] = sum(entry.stat().st_size for entry in entries)
        except OSError:
            continue  # its row will say so
    return sizes, times


def _digest(parts: List[bytes]) -> str:
    return hashlib.sha256(b'\0\0'.join(parts)).hexdigest()
