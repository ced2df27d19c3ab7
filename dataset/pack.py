"""Packs a data set into a store that is several times faster to train from: scaled JPEG frames in a few large files.

    python -m dataset.pack UCF101 --output dataset/UCF101/packed
    python train_model.py --dataset UCF101 --data-root dataset/UCF101/packed

After a stop the same command goes on.
"""
# The store is tar shards with a table of offsets in each and one index, because tar is what every machine reads, an
# offset is all that a reader needs, and a finished shard never changes, so that a stopped command goes on behind it.
# LMDB and HDF5 would each be one more package and one file that a kill may leave torn; a zip file's directory of all
# frames would be held in memory by every worker; webdataset reads tar files from end to end, which gives no clip at
# random.
import argparse
import os
import sys
import time
from typing import Callable, Iterator, List, Optional, Tuple

from data.bad_videos import NAMED_AT_MOST, first_of
from data.packed_index import PackedIndex, read_index
from dataset.options import CommandParser, add_option, add_options, whole_number
from dataset.packed import changed_videos, damaged_videos, refuse_changed
from dataset.packing import finished, pack
from dataset.packing_source import Options, collect
from dataset.progress import SAY_EVERY, exit_code, say_progress
from dataset.specs import DatasetSpec, find_dataset

SOUND, UNSOUND = 0, 1
SHORT_SIDE, QUALITY, SHARD_SIZE = 256, 90, 1024  # pixels, of JPEG, MiB


def _said(steps: Iterator[Tuple[int, int]], total: int, say: Callable[[str], None]) -> None:
    """Runs all the steps, with a word now and then about how far they are."""
    began = spoke = time.monotonic()
    first = None
    for done, size in steps:
        if first is None:
            first = done
            if done:
                say('%d of %d videos were packed before' % (done, total))
        now = time.monotonic()
        if now - spoke >= SAY_EVERY[sys.stderr.isatty()]:
            left = (total - done) * (now - began) / max(1, done - first)
            say('%d of %d videos packed, %.1f GB, %d:%02d:%02d left'
                % (done, total, size / 1e9, left // 3600, left // 60 % 60, left % 60))
            spoke = now


def describe(index: PackedIndex, folder: str) -> List[str]:
    """What the store holds, what it costs, and what is not in it, in lines."""
    videos, described = index.videos, index.description
    size, source, frames = int(index.shards['bytes'].sum()), int(videos['size'].sum()), int(videos['num_frames'].sum())
    lines = ['%s: %d videos, %d frames of at most %d pixels on the short side, %d shard(s)'
             % (folder, (videos['num_frames'] > 0).sum(), frames, described.short_side, len(index.shards)),
             '%.1f MB, %.1f kB a frame; %s: %.1f MB, so the store takes %.2f times as much'
             % (size / 1e6, size / 1e3 / frames, 'the videos' if described.kind == 'video' else 'the raw frames',
                source / 1e6, size / max(1, source))]
    lost = [video for video in index.problems if not videos['num_frames'][video]]
    for what, some in (('broken, left out', lost), ('broken, packed up to there', set(index.problems) - set(lost))):
        lines += ['%s: %d' % (what, len(some))] if some else []
        lines += first_of(sorted(some), lambda video: '%s: %s' % (  # the index has all
            os.fsdecode(index.names[video]), index.problems[video]))
    return lines


def _parse(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = CommandParser('dataset.pack', __doc__)
    add_options(parser, 'name', '--data-root', '--source', '--workers')
    add_option(parser, '--split', help='one split alone; default: all there are')
    add_option(parser, '--short-side', default=SHORT_SIDE)
    add_option(parser, '--quality', default=QUALITY)
    parser.add_argument('--output', required=True, metavar='DIR', help='folder of the store')
    parser.add_argument('--shard-size', type=whole_number(1, 1 << 30), default=SHARD_SIZE, help='most MiB of a file; '
                        'default %(default)s')
    parser.add_argument('--verify', action='store_true', help='pack nothing: read every frame of the store at '
                        '--output, and compare all videos with those that were packed')
    return parser.read(argv)


def _verify(folder: str, workers: int) -> int:
    """Reads everything; prints what is wrong. The exit code."""
    index = read_index(folder)
    damaged = list(damaged_videos(folder, index, workers))
    print('\n'.join(damaged[:NAMED_AT_MOST] + ['%d of %d videos are damaged: pack again' % (
        len(damaged), len(index.videos)) if damaged else 'all %d frames are sound' % index.shards['num_frames'].sum()]))
    refuse_changed(folder, changed_videos(index, len(index.videos)))
    return UNSOUND if damaged else SOUND


def pack_dataset(spec: DatasetSpec, root: Optional[str], folder: str, settings: Options, workers: int,
                 split: Optional[int] = None, source: str = 'auto') -> None:
    """Packs a data set into `folder`, or goes on, with words about it. Errors of `collect`, `finished` and `pack`."""
    packing, notes = collect(spec, root, split, source, settings)
    print('\n'.join(notes))
    index = finished(packing, folder)
    if index is None:
        _said(pack(packing, folder, settings.shard_size << 20, workers), len(packing.names), say_progress)
        index = read_index(folder)
    else:
        print('packed before; nothing to do')
    say_progress('')
    print('\n'.join(describe(index, folder)))


def run(options: argparse.Namespace) -> int:
    """Packs or verifies; the exit code."""
    folder = os.path.abspath(options.output)
    if options.verify:
        return _verify(folder, options.workers)
    pack_dataset(find_dataset(options.name), options.data_root, folder,
                 Options(options.short_side, options.quality, options.shard_size), options.workers, options.split,
                 options.source)
    return SOUND


def main(argv: Optional[List[str]] = None) -> int:
    """The command; returns its exit code."""
    options = _parse(argv)
    return exit_code(lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
