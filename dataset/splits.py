"""Divides videos of one's own into training and test: grouped (clips of one source stay on one side), stratified (each
class has its share), and repeatable.
"""
import hashlib
import os
import re
from collections import Counter, defaultdict
from typing import Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

from dataset.layouts import GROUPED_NAME, some_of
from dataset.lists import Row

TIMES = re.compile(r'(.+?)_\d{6}_\d{6}$')  # Kinetics: source_start_end
COUNTER = re.compile(r'(.*?[^\W\d_].*?)[ _.-]*(?:clip|part|seg|segment|scene|take|shot|c|p|s)?[ _.-]*\(?\d+\)?$', re.I)


class Split(NamedTuple):
    """The two parts, and what is worth knowing about them."""

    train: List[Row]
    test: List[Row]
    notes: List[str]


def known_source(path: str) -> str:
    """What a clip was cut from, where its name has a form that says so (UCF-101's, Kinetics'); '' elsewhere."""
    folder, name = os.path.split(path)
    grouped, timed = GROUPED_NAME.match(name), TIMES.match(os.path.splitext(name)[0])
    if grouped:
        return '%s/g%s' % (os.path.basename(folder), grouped.group(2))
    return timed.group(1) if timed else ''


def source_of(path: str) -> str:
    """The same for any name: failing these forms, the name without its number, folder included."""
    folder, name = os.path.split(path)
    stem = os.path.splitext(name)[0]
    found = COUNTER.match(stem)
    return known_source(path) or '%s/%s' % (folder, found.group(1) if found else stem)


def join_groups(groups: Sequence[str], same: Sequence[str]) -> List[str]:
    """Groups by row, those united whose rows share a mark in `same` ('' is none): files of equal content."""
    names: Dict[str, str] = {}

    def root(name: str) -> str:
        while names.get(name, name) != name:
            name = names[name]
        return name

    first: Dict[str, str] = {}
    for group, mark in zip(groups, same):
        if mark:
            names[root(group)] = root(first.setdefault(mark, group))
    return [root(group) for group in groups]


def divide(rows: Sequence[Row], groups: Sequence[str], class_names: Sequence[str], share: float, seed: int) -> Split:
    """About `share` of each class to test, whole groups each. A class all of whose clips are one group trains alone."""
    if not 0 < share < 1:
        raise ValueError('--test-share must lie between 0 and 1, not %g' % share)
    members: Dict[str, List[int]] = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    wanted = _wanted(Counter((row.label, group) for row, group in zip(rows, groups)), share)
    order = sorted(members, key=lambda group: hashlib.sha256(('%d %s' % (seed, group)).encode(
        'utf-8', 'surrogateescape')).digest())
    tested: Counter = Counter()
    chosen: Set[int] = set()
    for group in order:
        here = Counter(rows[place].label for place in members[group])
        if _gain(here, tested, wanted) > 0:
            tested.update(here)
            chosen.update(members[group])
    train = [row for place, row in enumerate(rows) if place not in chosen]
    test = [row for place, row in enumerate(rows) if place in chosen]
    return Split(train, test, _notes(train, test, class_names))


def _wanted(sizes: Mapping[Tuple[int, str], int], share: float) -> Dict[int, float]:
    """Test videos of each label; where there are two groups, enough for the smaller one to be taken."""
    of_label: Dict[int, List[int]] = defaultdict(list)
    for (label, _), size in sizes.items():
        of_label[label].append(size)
    return {label: max(share * sum(groups), 0.51 * min(groups) if len(groups) > 1 else 0.0)
            for label, groups in of_label.items()}


def _gain(here: Mapping[int, int], tested: Mapping[int, int], wanted: Mapping[int, float]) -> float:
    """How much nearer to the shares the test part comes with a group of such labels."""
    return sum(abs(wanted[label] - tested[label]) - abs(wanted[label] - tested[label] - count)
               for label, count in here.items())


def _notes(train: Sequence[Row], test: Sequence[Row], class_names: Sequence[str]) -> List[str]:
    notes = []
    for part, other, word in ((train, test, 'train'), (test, train, 'test')):
        lacking = sorted({row.label for row in other} - {row.label for row in part})
        if lacking:
            notes.append('%d classes have no video to %s with, since theirs are too few or of one source: %s'
                         % (len(lacking), word, some_of([class_names[label] for label in lacking])))
    return notes


def sources_of(rows: Sequence[Row]) -> List[str]:
    """The group of each row by `source_of`; a class whose names would make one group of it counts each file alone."""
    groups = [source_of(row.path) for row in rows]
    of_class: Dict[int, Set[str]] = defaultdict(set)
    for row, group in zip(rows, groups):
        of_class[row.label].add(group)
    return [row.path if len(of_class[row.label]) == 1 else group for row, group in zip(rows, groups)]
