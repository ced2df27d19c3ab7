"""Looks at every video of a data set, keeps what it learns in the index that training uses, and says what is wrong.

    python -m dataset.check UCF101 --json findings.json
    python -m dataset.check folder --data-root my_videos --sheet sheet.html

Exit code 0: sound; 1: not; 2: could not be checked. After changes, or after Ctrl-C, the same command looks at new and
changed files alone.
"""
import argparse
import json
import posixpath
import sys
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from data.bad_videos import first_of
from data.strict_decoding import strict_decoder
from dataset.contact_sheet import contact_sheet
from dataset.index import Record, index_path, prefix_of
from dataset.indexing import update_index
from dataset.layouts import absent
from dataset.options import CommandParser, add_option, add_options
from dataset.progress import exit_code, say_progress, with_progress
from dataset.specs import DatasetSpec, Found, find_dataset, find_rows, load_videos
from dataset.splits import known_source

SOUND, UNSOUND = 0, 1
FAULTS = ('broken', 'missing', 'duplicated', 'in_both_splits', 'leaking_groups')  # a short video trains all the same


class Item(NamedTuple):
    """A row: 'train' or 'test', and its path below the data set's root."""

    part: str
    path: str


def check(found: Found, clip_span: int, workers: int, say: Callable[[str], None]) -> Dict[str, Any]:
    """Brings the index up to date and returns the findings, each a list: see `describe`. Errors of `update_index`.

    `clip_span` is the number of frames that a video must have to hold a clip without repeating.
    """
    items, missing = _items(found)
    there = sorted({item.path for item in items} - {lost.path for lost in missing})
    records: Dict[str, Record] = {}
    broken, short = [], []
    for path, result in with_progress(update_index(found.root, [(path, found.tree.kind) for path in there], workers),
                              len(there), 'examined', say):
        if not isinstance(result, Record):
            broken.append({'path': path, 'num_frames': 0, 'reason': result})
            continue
        records[path] = result
        if result.problem:
            broken.append({'path': path, 'num_frames': result.facts.num_frames, 'reason': result.problem})
        if 0 < result.facts.num_frames < clip_span:
            short.append({'path': path, 'num_frames': result.facts.num_frames})
    duplicated, in_both = _met_again(items, records)
    return {'broken': sorted(broken, key=_path_of), 'short': sorted(short, key=_path_of), 'duplicated': duplicated,
            'missing': [dict(item._asdict()) for item in missing], 'in_both_splits': in_both,
            'leaking_groups': _leaking(items)}


def _path_of(finding: Dict[str, Any]) -> str:
    return finding['path']


def _items(found: Found) -> Tuple[List[Item], List[Item]]:
    """All rows, and those that are not there."""
    items: List[Item] = []
    missing: List[Item] = []
    for part, rows, folder in (('train', found.rows.train, found.tree.train_root),
                               ('test', found.rows.test, found.tree.test_root)):
        prefix = prefix_of(found.root, folder)
        own = [Item(part, prefix + row.path) for row in rows]
        missing += [own[place] for place in sorted(absent(rows, folder, found.tree.kind))]
        items += own
    return items, missing


def _met_again(items: List[Item], records: Dict[str, Record]) -> Tuple[List[List[str]], List[Dict[str, List[str]]]]:
    """Rows of the same frames or the same file: groups of one split, and groups of both."""
    first: Dict[str, Item] = {}
    groups: Dict[str, List[Item]] = {}
    for item in items:
        record = records.get(item.path)
        key = record.content if record is not None and record.content else posixpath.normpath(item.path)
        if key in first:
            groups.setdefault(key, [first[key]]).append(item)
        else:
            first[key] = item
    parted = [{part: sorted(item.path for item in group if item.part == part) for part in ('train', 'test')}
              for group in groups.values()]
    both = [group for group in parted if group['train'] and group['test']]
    return sorted(group['train'] or group['test'] for group in parted if group not in both), both


def _leaking(items: List[Item]) -> List[Dict[str, List[str]]]:
    """Groups, as names of known form give them, with rows in both splits."""
    groups: Dict[str, Dict[str, List[str]]] = {}
    for item in items:
        group = known_source(item.path)
        if group:
            groups.setdefault(group, {'train': [], 'test': []})[item.part].append(item.path)
    return [group for _, group in sorted(groups.items()) if group['train'] and group['test']]


def balance(found: Found) -> Dict[str, Dict[str, int]]:
    """Rows of each class: {class: {'train': …, 'test': …}}, in label order."""
    counted = [Counter(row.label for row in rows) for rows in (found.rows.train, found.rows.test)]
    return {name: {'train': counted[0][label], 'test': counted[1][label]}
            for label, name in enumerate(found.class_names)}


def expected_counts(spec: DatasetSpec, split: int) -> Tuple[int, int]:
    """Training and test videos of a complete split; 0 where that is not known."""
    if spec.counts is None:
        return spec.published
    tested = range(7 * (split - 1), 7 * split)
    test = sum(sum(groups[place] for place in tested) for groups in spec.counts())
    return sum(map(sum, spec.counts())) - test, test


def describe(findings: Dict[str, Any]) -> List[str]:
    """The findings in lines."""
    texts = {
        'broken': lambda one: '%s: %s (%s)' % (one['path'], one['reason'], 'its first %d frames are correct'
                                               % one['num_frames'] if one['num_frames'] else 'nothing can be used'),
        'short': lambda one: '%s: %d frames' % (one['path'], one['num_frames']), 'duplicated': ' = '.join,
        'missing': lambda one: one['path'],
        'in_both_splits': lambda one: '%s = %s' % (', '.join(one['train']), ', '.join(one['test'])),
        'leaking_groups': lambda one: '%s ~ %s' % (', '.join(one['train']), ', '.join(one['test'])),
    }  # type: Dict[str, Callable[[Any], str]]
    lines = []
    for kind, text in texts.items():
        lines.append('%s: %s' % (kind.replace('_', ' '), len(findings[kind]) or 'none'))
        lines += first_of(findings[kind], text)  # the JSON file has all
    return lines


def describe_counts(report: Dict[str, Any]) -> List[str]:
    """How many videos there are of how many, and how evenly the classes share them."""
    lines = []
    for part in ('train', 'test'):
        sizes = sorted((counts[part], name) for name, counts in report['classes'].items())
        of = ' of %d published' % report['expected_' + part] if report['expected_' + part] else ''
        line = '%s: %d videos%s; a class has %d (%s) to %d (%s), median %d' % (
            part, report['num_' + part], of, sizes[0][0], sizes[0][1], sizes[-1][0], sizes[-1][1],
            sizes[len(sizes) // 2][0])
        empty = sum(not size for size, _ in sizes)
        lines.append(line + ('; %d classes have none' % empty if empty else ''))
    return lines


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line."""
    parser = CommandParser('dataset.check', __doc__)
    add_options(parser, 'name', '--data-root', '--source', '--workers')
    add_option(parser, '--split', default=1)
    parser.add_argument('--clip-length', type=int, help='frames of a clip, to tell which videos are short; default: '
                        'as in training')
    parser.add_argument('--train-frame-interval', type=int, help='their distance; default: as in training')
    parser.add_argument('--json', metavar='FILE', help='write all findings there')
    parser.add_argument('--sheet', metavar='FILE', help='write a page (HTML) of sampled clips as the network sees them')
    parser.add_argument('--sheet-clips', type=int, default=24, help='how many clips it shows [24]')
    return parser.read(argv)


def write_sheet(spec: DatasetSpec, options: argparse.Namespace, clip: Tuple[int, int]) -> None:
    """Writes the page of sampled clips, cut as training with the data set's own options cuts them."""
    videos = load_videos(spec, options.data_root, options.split, options.source)
    crop = spec.defaults.get('crop_size', 224)
    low, high = (int(round(share * crop)) for share in spec.scale_range)
    page = contact_sheet('%s, split %d' % (spec.name, options.split), videos.class_names, videos.train,
                         clip + (crop,), (low, high), options.sheet_clips)
    with open(options.sheet, 'w', encoding='utf-8') as file:
        file.write(page)
    print('sheet: %s' % options.sheet)


def run(options: argparse.Namespace) -> int:
    """Checks and prints; the exit code."""
    spec = find_dataset(options.name)
    found = find_rows(spec, options.data_root, options.split, options.source)
    length = options.clip_length or spec.defaults.get('clip_length', 8)
    interval = options.train_frame_interval or spec.defaults.get('train_frame_interval', 8)
    print('\n'.join(found.notes))
    if strict_decoder() is None:
        print('PyAV is not installed: OpenCV hides damage within a file; `pip install av` and check again finds it')
    expected = expected_counts(spec, options.split)
    findings = check(found, (length - 1) * interval + 1, options.workers, say_progress)
    faults = [kind for kind in FAULTS if findings[kind] and not (kind == 'missing' and spec.tolerant)]
    report = dict({'dataset': spec.name, 'data_root': found.root, 'split': options.split, 'source': found.tree.kind,
                   'index': index_path(found.root), 'num_train': len(found.rows.train), 'sound': not faults,
                   'num_test': len(found.rows.test), 'expected_train': expected[0], 'expected_test': expected[1],
                   'classes': balance(found), 'num_frames_of_a_clip': (length - 1) * interval + 1}, **findings)
    say_progress('')
    print('\n'.join(describe(findings) + describe_counts(report)))
    print('index: %s\n%s' % (report['index'], 'not sound: ' + ', '.join(faults).replace('_', ' ') if faults
                             else 'sound'))
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as file:
            json.dump(report, file, indent=1)
            file.write('\n')
    if options.sheet:
        write_sheet(spec, options, (length, interval))
    return UNSOUND if faults else SOUND


def main(argv: Optional[List[str]] = None) -> int:
    """The command; returns its exit code."""
    options = parse(argv)
    return exit_code(lambda: run(options))


if __name__ == '__main__':
    sys.exit(main())
