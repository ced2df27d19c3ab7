"""Makes a tree to train from out of what was downloaded.

    python -m dataset.prepare UCF101 --source UCF101.rar UCF101TrainTestSplits-RecognitionTask.zip
    python -m dataset.prepare folder --source my_clips --output my_videos

Unpacks, puts videos in place, writes lists, class names and the index. Exit code 0: ready; 2: not, with a list of what
is missing. Stopped at any moment, the same command goes on; run twice, it writes the same bytes. The source stays as it
is.
"""
import argparse
import os
import shutil
import sys
from functools import partial
from typing import Dict, List, Optional, Sequence, Set, Tuple

from dataset import pack, placing
from dataset.frames import FLOWS, check_flow, make_pictures
from dataset.gather import UNPACKED, Gathered, Say, gather
from dataset.index import Record
from dataset.indexing import update_index
from dataset.layouts import REENCODED, VIDEO_ENDINGS, some_of
from dataset.lists import write_class_names
from dataset.options import CommandParser, add_option, whole_number
from dataset.packing_source import Options
from dataset.prepared_lists import missing_of, own_rows, rows_from_tree, write_lists
from dataset.progress import USER_ERROR, exit_code, say_progress, with_progress
from dataset.reencode import USUAL, Coding, check_encoder, coding_of, reencode_all
from dataset.specs import PROJECT, DatasetSpec, find_dataset, load_videos, published_names

READY, INCOMPLETE = 0, USER_ERROR
QUALITY = 95  # of pictures
MISSING = 'missing.txt'
LISTS = {  # annotation files that are kept, by the start of their names: the folder they go to
    'UCF101': (('classind', 'trainlist', 'testlist'), 'ucfTrainTestlist'),
    'Kinetics400': (('train', 'val', 'kinetics'), ''),
}


def put_in_place(spec: DatasetSpec, found: Gathered, output: str, csv_path: Optional[str],
                 say: Say) -> placing.Placed:
    """Plans and carries out where every file goes. ValueError for two files for one place, or a csv that is wrong."""
    names = published_names(spec)
    if names is None:
        placed = placing.own_folder(found, csv_path)
    else:
        placed = placing.kinetics(found, names) if spec.parted else placing.by_class_folder(found, names)
    if placed.strange:
        say('%d videos belong to no class of %s and are left out: %s'
            % (len(placed.strange), spec.name, some_of(sorted(placed.strange))))
    if not placed.plan:
        raise ValueError('no video of %s in the source: its class is read from the name of the folder that it lies in'
                         % spec.name)
    placed = placing.apart(placed)
    placing.add_lists(placed.plan, found, partial(_list_place, spec))
    for target, place in with_progress(sorted(placed.plan.items()), len(placed.plan), 'in place', say_progress):
        placing.put(place, os.path.join(output, *target.split('/')), os.path.join(output, UNPACKED, 'copy.part'))
    return placed


def _list_place(spec: DatasetSpec, name: str) -> Optional[str]:
    lower = name.lower()
    if spec.name == 'HMDB51' and '_test_split' in lower:
        return 'testTrainMulti_7030_splits/' + name
    starts, folder = LISTS.get(spec.name, ((), ''))
    if not lower.startswith(starts) or (spec.parted and not lower.endswith('.csv')):
        return None
    return '%s/%s' % (folder, name) if folder else name


def examined(output: str, folder: str, workers: int) -> Tuple[List[str], Dict[str, Record]]:
    """Brings the index up to date with every video in a folder below the output: (their paths, what is known)."""
    paths = sorted(os.path.relpath(os.path.join(root, name), output)
                   for root, _, names in os.walk(os.path.join(output, folder)) for name in names
                   if name.lower().endswith(VIDEO_ENDINGS))
    results = update_index(output, [(path, 'video') for path in paths], workers)
    return paths, {path: record for path, record in with_progress(results, len(paths), 'examined', say_progress)
                   if isinstance(record, Record)}


def make_more(options: argparse.Namespace, output: str, paths: List[str], known: Dict[str, Record]) -> None:
    """Writes what was asked for beside the videos: pictures, re-encoded films. Errors as of their functions."""
    if options.rawframes or options.flow:
        chosen = {'rgb': options.rawframes, 'flow': options.flow or '', 'quality': options.quality or QUALITY,
                  'short_side': options.short_side or 0}
        for line in make_pictures(output, paths, chosen, options.workers):
            _say_line('no pictures of ' + line)
    if options.coding:
        for line in reencode_all(output, known, paths, options.coding, options.workers):
            _say_line('not encoded, taken as it is: ' + line)


def prepare(spec: DatasetSpec, options: argparse.Namespace, output: str) -> List[str]:
    """Does all of it; returns what is missing, by name. Errors as in `gather`, `put_in_place` and `load_videos`."""
    placed = put_in_place(spec, gather(options.source, output, _say_line), output, options.csv, _say_line)
    write_class_names(os.path.join(output, 'classes.txt'), placed.class_names)
    paths, known = examined(output, 'videos', options.workers)
    broken = [path for path in paths if path not in known or known[path].problem]
    if broken:
        _say_line('%d videos are broken: %s; python -m dataset.check %s says how' % (len(broken), some_of(broken),
                                                                                   spec.name))
    make_more(options, output, paths, known)
    missing: Set[str] = set()
    for split in range(1, spec.num_splits + 1):
        if spec.classes is None:
            rows = own_rows(output, placed, known, (options.test_share, options.random_seed), _say_line)
        else:
            found = rows_from_tree(spec, output, split)
            rows = found.rows
            missing |= missing_of(spec, found)
        write_lists(spec, output, rows, split)
    shutil.rmtree(os.path.join(output, UNPACKED), ignore_errors=True)  # a run that is killed before goes on from it
    if os.path.isdir(os.path.join(output, REENCODED)):
        examined(output, REENCODED, options.workers)
    return sorted(missing)


def _say_line(text: str) -> None:
    say_progress('')
    print(text, flush=True)


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser('dataset.prepare', __doc__)
    parser.add_argument('name', help='UCF101, HMDB51, Kinetics400, or folder for videos of your own')
    parser.add_argument('--source', nargs='+', required=True, metavar='PATH', help='folders, archives (.zip, .tar, '
                        '.tar.gz, .rar) and annotation files as they were downloaded; they stay as they are')
    parser.add_argument('--output', metavar='DIR', help='where the tree goes; default: where train_model.py looks')
    parser.add_argument('--csv', metavar='FILE', help='for folder: a csv with the columns path (below --source), label '
                        'and, if you like, split (train or test) and group; default: <class>/<video>')
    parser.add_argument('--test-share', type=float, default=0.2, help='for folder: share of each class to test with '
                        '[0.2]; clips of one source stay together')
    parser.add_argument('--random-seed', type=int, default=1, help='of that division [1]')
    parser.add_argument('--rawframes', action='store_true', help='also write each video as JPEG files')
    parser.add_argument('--flow', nargs='?', const='dis', choices=sorted(FLOWS), help='also write optical flow as JPEG '
                        'files: dis [default] or tvl1')
    parser.add_argument('--reencode', action='store_true', help='also write each video anew with dense key frames, and '
                        'train from these: faster where films are long; needs PyAV')
    parser.add_argument('--key-frames', type=whole_number(1, 1000), help='of re-encoded videos: frames from one key '
                        'frame to the next [%d]' % USUAL.key_frames)
    parser.add_argument('--quantizer', type=whole_number(1, 31), help="of re-encoded videos: MPEG-4's, lower is better "
                        'and larger [%d]' % USUAL.quantizer)
    parser.add_argument('--pack', action='store_true', help='also write a packed store into DIR/packed, as '
                        'dataset.pack does')
    add_option(parser, '--quality', help='of JPEG, 1 to 100 [pictures: %d, packed: %d]' % (QUALITY, pack.QUALITY))
    add_option(parser, '--short-side', type=whole_number(0, 8192), help='most pixels of the short side, 0: as it is '
               '[pictures: 0, re-encoded: %d, packed: %d]' % (USUAL.short_side, pack.SHORT_SIDE))
    add_option(parser, '--workers')
    options = parser.read(argv)
    if not 0 < options.test_share < 1:
        parser.error('--test-share takes a number between 0 and 1')
    if not options.reencode and (options.key_frames or options.quantizer):
        parser.error('--key-frames and --quantizer are of --reencode: add it, or drop them')
    return options


def _coding(options: argparse.Namespace, output: str) -> Optional[Coding]:
    """How films are to be re-encoded; those of an earlier run are kept up to date. ValueError as of check_encoder."""
    typed = {name: getattr(options, name) for name in Coding._fields if getattr(options, name) is not None}
    coding = USUAL._replace(**typed) if options.reencode else coding_of(output)
    if coding is not None:
        check_encoder()
    return coding


def run(options: argparse.Namespace) -> int:
    """Prepares and prints; the exit code."""
    spec = find_dataset(options.name)
    if spec.render is not None:
        raise ValueError('%s needs no preparing: it is rendered when it is first used' % spec.name)
    if options.csv and spec.classes is not None:
        raise ValueError('--csv %s: is for videos of your own; the classes of %s are known' % (options.csv, spec.name))
    if options.flow:
        check_flow(options.flow)
    output = os.path.abspath(options.output or os.path.join(PROJECT, spec.default_root))
    options.coding = _coding(options, output)
    os.makedirs(output, exist_ok=True)
    missing = prepare(spec, options, output)
    if missing and not spec.tolerant:
        print('%d videos are missing:\n%s' % (len(missing), '\n'.join('  ' + name for name in missing)))
        return INCOMPLETE
    if missing:
        write_class_names(os.path.join(output, MISSING), missing)
        print('%d listed videos are not in the source and are left out: %s (all of them in %s)'
              % (len(missing), some_of(missing), MISSING))
    videos = load_videos(spec, output)
    print('ready: %d videos to train with, %d to test with, %d classes%s, below %s' % (
        len(videos.train), len(videos.test), len(videos.class_names),
        ' (split 1 of %d)' % spec.num_splits if spec.num_splits > 1 else '', output))
    if options.pack:
        settings = Options(options.short_side or pack.SHORT_SIDE, options.quality or pack.QUALITY, pack.SHARD_SIZE)
        pack.pack_dataset(spec, output, os.path.join(output, 'packed'), settings, options.workers)
    return READY


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; returns its exit code."""
    options = parse(argv)
    return exit_code(lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
