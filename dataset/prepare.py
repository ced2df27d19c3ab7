"""From what was downloaded to a tree that is ready to train from: `python -m dataset.prepare UCF101 --source PATH`

Unpacks, puts videos in place, writes lists, class names and the index, and says what is missing. Stopped at any
moment, the same command goes on; run twice, it writes the same bytes. The source stays as it is.
"""
import argparse
import os
import shutil
import sys
from functools import partial
from typing import Dict, List, Optional, Sequence, Set

from dataset import placing
from dataset.frames import FLOWS, check_flow, count_frames, make_pictures
from dataset.gather import UNPACKED, Gathered, Say, gather
from dataset.index import Record
from dataset.indexing import update_index
from dataset.layouts import VIDEO_ENDINGS, absent, class_folder_rows, grouped_rows, some_of
from dataset.lists import Row, write_class_names, write_list
from dataset.progress import USER_ERROR, exit_code, say_progress, usable_cores, with_progress
from dataset.rows import Rows, listed_rows, missing_clips
from dataset.specs import PROJECT, DatasetSpec, Found, find_dataset, find_rows, load_videos, published_names
from dataset.splits import divide, join_groups, sources_of

READY, INCOMPLETE = 0, USER_ERROR
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
    placing.add_lists(placed.plan, found, partial(_list_place, spec))
    for number, (target, place) in enumerate(sorted(placed.plan.items()), 1):
        placing.put(place, os.path.join(output, *target.split('/')), os.path.join(output, UNPACKED, 'copy.part'))
        if number % 1000 == 0:
            say('%d of %d files in place' % (number, len(placed.plan)))
    return placed


def _list_place(spec: DatasetSpec, name: str) -> Optional[str]:
    lower = name.lower()
    if spec.name == 'HMDB51' and '_test_split' in lower:
        return 'testTrainMulti_7030_splits/' + name
    starts, folder = LISTS.get(spec.name, ((), ''))
    if not lower.startswith(starts) or (spec.parted and not lower.endswith('.csv')):
        return None
    return '%s/%s' % (folder, name) if folder else name


def write_lists(spec: DatasetSpec, output: str, rows: Rows, split: int) -> None:
    """The lists of one split: of videos in each family, and of raw frames for the videos that have them."""
    done = set()
    for names in spec.list_names:
        if names.family in done:  # a second spelling that is read too
            continue
        done.add(names.family)
        for name, part in ((names.train, rows.train), (names.test, rows.test)):
            if names.family == 'rawframes':
                part = _framed(os.path.join(output, 'rawframes'), part)
                if not part:
                    continue
            path = os.path.join(output, name.format(split=split).replace('*', ''))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_list(path, names.family, part)


def _framed(folder: str, rows: Sequence[Row]) -> List[Row]:
    """Rows of the frame folders of videos; those that are not there are left out."""
    counted = ((row._replace(path=path), os.path.join(folder, path)) for row in rows
               for path in [os.path.splitext(row.path)[0]])
    return [row._replace(num_frames=count_frames(place)) for row, place in counted if os.path.isdir(place)]


def rows_from_tree(spec: DatasetSpec, output: str, split: int) -> Found:
    """The rows of a split from annotations or names, whatever lists an earlier run has left."""
    finders = tuple(find for find in spec.finders if find is not listed_rows)
    return find_rows(spec._replace(finders=finders), output, split, 'video')


def own_rows(output: str, placed: placing.Placed, contents: Dict[str, str], share: float, seed: int, say: Say) -> Rows:
    """The rows of a user's own videos: by the parts that folders or csv name, else divided by source."""
    rows = class_folder_rows(os.path.join(output, 'videos'), placed.class_names, 'video')
    said = [placed.said.get('videos/' + row.path, placing.OwnRow('', '', '')) for row in rows]
    parts: Set[str] = {one.part for one in said}
    if 'train' in parts and parts & {'val', 'test'}:
        tested = 'val' if 'val' in parts else 'test'
        left = sum(one.part not in ('train', tested) for one in said)
        if left:
            say('%d videos are in neither train nor %s and are left out of the lists' % (left, tested))
        chosen = [[row for row, one in zip(rows, said) if one.part == part] for part in ('train', tested)]
        return Rows(chosen[0], chosen[1], '', '', [])
    groups = [one.group or group for one, group in zip(said, sources_of(rows))]
    groups = join_groups(groups, [contents.get('videos/' + row.path, '') for row in rows])
    split = divide(rows, groups, placed.class_names, share, seed)
    for note in split.notes + ['%d videos of %d sources: %d to train with, %d to test with' % (
            len(rows), len(set(groups)), len(split.train), len(split.test))]:
        say(note)
    return Rows(split.train, split.test, '', '', [])


def _index(output: str, workers: int) -> Dict[str, str]:
    """Examines every video below the output; path -> hash of its frames, where it has any."""
    folder = os.path.join(output, 'videos')
    paths = sorted(os.path.relpath(os.path.join(root, name), output)
                   for root, _, names in os.walk(folder) for name in names if name.lower().endswith(VIDEO_ENDINGS))
    results = update_index(output, [(path, 'video') for path in paths], workers)
    return {path: record.content for path, record in with_progress(results, len(paths), 'examined', say_progress)
            if isinstance(record, Record)}


def prepare(spec: DatasetSpec, options: argparse.Namespace, output: str) -> List[str]:
    """Does all of it; returns what is missing, by name. Errors as in `gather`, `put_in_place` and `load_videos`."""
    say = _say_line
    placed = put_in_place(spec, gather(options.source, output, say), output, options.csv, say)
    write_class_names(os.path.join(output, 'classes.txt'), placed.class_names)
    shutil.rmtree(os.path.join(output, UNPACKED), ignore_errors=True)
    contents = _index(output, options.workers)
    pictures = {'rgb': options.rawframes, 'flow': options.flow or '', 'quality': options.quality,
                'short_side': options.short_side}
    if options.rawframes or options.flow:
        for line in make_pictures(output, pictures, options.workers):
            say('no pictures of ' + line)
    missing: Set[str] = set()
    for split in range(1, spec.num_splits + 1):
        if spec.classes is None:
            rows = own_rows(output, placed, contents, options.test_share, options.random_seed, say)
        else:
            found = rows_from_tree(spec, output, split)
            rows = found.rows
            missing |= set() if spec.tolerant else _missing(spec, found)
        write_lists(spec, output, rows, split)
    return sorted(missing)


def _missing(spec: DatasetSpec, found: Found) -> Set[str]:
    """Clips of the published set, and rows of annotations, that are not there."""
    rows = list(found.rows.train) + list(found.rows.test)
    gone = {rows[place].path for place in absent(rows, found.tree.train_root, 'video')}
    if spec.counts is not None:
        videos = grouped_rows(class_folder_rows(found.tree.train_root, found.class_names, 'video'), found.class_names)
        gone |= set(missing_clips(videos, found.class_names, spec.counts()))
    return gone


def _say_line(text: str) -> None:
    say_progress('')
    print(text, flush=True)


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog='python -m dataset.prepare', description='Makes a tree to train from out of '
                                     'what was downloaded. Exit code 0: ready; 2: not, with a list of what is missing.')
    parser.add_argument('name', help='UCF101, HMDB51, Kinetics400, or folder for videos of your own')
    parser.add_argument('--source', nargs='+', required=True, metavar='PATH', help='folders, archives (.zip, .tar, '
                        '.tar.gz, .rar) and annotation files as they were downloaded; they stay as they are')
    parser.add_argument('--output', help='where the tree goes; default: where train_model.py looks')
    parser.add_argument('--csv', metavar='FILE', help='for folder: a csv with the columns path (below --source), label '
                        'and, if you like, split (train or test) and group; default: <class>/<video>')
    parser.add_argument('--test-share', type=float, default=0.2, help='for folder: share of each class to test with '
                        '[0.2]; clips of one source stay together')
    parser.add_argument('--random-seed', type=int, default=1, help='of that division [1]')
    parser.add_argument('--rawframes', action='store_true', help='also write each video as JPEG files')
    parser.add_argument('--flow', nargs='?', const='dis', choices=sorted(FLOWS), help='also write optical flow as JPEG '
                        'files: dis [default] or tvl1')
    parser.add_argument('--quality', type=int, default=95, help='of JPEG, 1 to 100 [95]')
    parser.add_argument('--short-side', type=int, default=0, help='pixels of the pictures\' short side [0: as it is]')
    parser.add_argument('--workers', type=int, default=usable_cores(), help='processes [%(default)s, the cores]')
    options = parser.parse_args(argv)
    if not 1 <= options.quality <= 100 or options.short_side < 0 or options.workers < 1:
        parser.error('--quality takes 1 to 100, --short-side 0 or more, --workers 1 or more')
    if not 0 < options.test_share < 1:
        parser.error('--test-share takes a number between 0 and 1')
    return options


def run(options: argparse.Namespace) -> int:
    """Prepares and prints; the exit code."""
    spec = find_dataset(options.name)
    if spec.render is not None:
        raise ValueError('%s needs no preparing: it is rendered when it is first used' % spec.name)
    if options.flow:
        check_flow(options.flow)
    output = os.path.abspath(options.output or os.path.join(PROJECT, spec.default_root))
    os.makedirs(output, exist_ok=True)
    missing = prepare(spec, options, output)
    if missing:
        print('%d videos are missing:\n%s' % (len(missing), '\n'.join('  ' + name for name in missing)))
        return INCOMPLETE
    videos = load_videos(spec, output)
    print('ready: %d videos to train with, %d to test with, %d classes%s, below %s' % (
        len(videos.train), len(videos.test), len(videos.class_names),
        ' (split 1 of %d)' % spec.num_splits if spec.num_splits > 1 else '', output))
    return READY


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command; returns its exit code."""
    options = parse(argv)
    return exit_code(lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
