"""Which file of a source goes where in a prepared tree: a function for each shape that data sets are published in."""
import csv
import os
import re
import shutil
import unicodedata
from collections import Counter
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from dataset.gather import Gathered, Item
from dataset.layouts import GROUPED_NAME
from dataset.lists import ListError, class_key, class_keys

PARTS = {'train': 'train', 'training': 'train', 'val': 'val', 'validate': 'val', 'validation': 'val', 'test': 'test'}
TIMES = re.compile(r'(.+)_(\d{6})_(\d{6})$')
Plan = Dict[str, str]  # path below the output -> where the file lies


class OwnRow(NamedTuple):
    """What is said of a video of one's own, by a csv or by its folders: its class; part and group may be empty."""

    label: str
    part: str
    group: str


class Placed(NamedTuple):
    """The plan, the class names in label order, files that fit nowhere; what is said of videos, by their places."""

    plan: Plan
    class_names: List[str]
    strange: List[str]
    said: Dict[str, OwnRow] = {}


def _named_parts(item: Item) -> List[str]:
    return item.name.split('/')[:-1]


def _put(plan: Plan, target: str, item: Item) -> None:
    """Plans a file. ValueError where two different files want one place."""
    other = plan.setdefault(target, item.place)
    if other != item.place and not _equal(other, item.place):
        raise ValueError('%s and %s are different files for one place (%s): rename or remove one'
                         % (other, item.place, target))


def _equal(path: str, other: str) -> bool:
    if os.path.getsize(path) != os.path.getsize(other):
        return False
    with open(path, 'rb') as file, open(other, 'rb') as second:
        return all(block == second.read(1 << 20) for block in iter(lambda: file.read(1 << 20), b''))


def by_class_folder(found: Gathered, class_names: Sequence[str]) -> Placed:
    """Videos into videos/<Class>/: the class is that of the nearest folder named as one, or of a name like
    v_<Class>_gGG_cCC.
    """
    keys, plan, strange = class_keys(class_names), {}, []  # type: Tuple[Dict[str, int], Plan, List[str]]
    for item in found.videos:
        folder = next((part for part in reversed(_named_parts(item)) if class_key(part) in keys), None)
        match = GROUPED_NAME.match(os.path.basename(item.name))
        key = class_key(folder) if folder is not None else class_key(match.group(1)) if match else ''
        if key not in keys:
            strange.append(item.name)
            continue
        _put(plan, 'videos/%s/%s' % (class_names[keys[key]], os.path.basename(item.name)), item)
    return Placed(plan, list(class_names), strange)


def add_lists(plan: Plan, found: Gathered, place_of: Callable[[str], Optional[str]]) -> None:
    """Adds annotation files: `place_of` gives a list's place below the output by its name, None for others."""
    for item in found.lists:
        target = place_of(os.path.basename(item.name))
        if target is not None:
            _put(plan, target, item)


def kinetics(found: Gathered, class_names: Sequence[str]) -> Placed:
    """Videos into videos/train/<class>/ and videos/val/<class>/, by the csv files where there are any (by identifier
    and start), else by folders of these names.
    """
    rows = dict(_csv_rows(found.lists))
    keys, plan, strange = class_keys(class_names), {}, []  # type: Tuple[Dict[str, int], Plan, List[str]]
    replaced = {os.path.basename(item.name) for item in found.videos if _is_replacement(item)}
    for item in found.videos:
        if os.path.basename(item.name) in replaced and not _is_replacement(item):
            continue
        stem = os.path.splitext(os.path.basename(item.name))[0]
        match = TIMES.match(stem)
        row = rows.get((match.group(1), int(match.group(2)))) if match else None
        part, name = row or _part_and_class(item, keys)
        if part == 'test' or class_key(name) not in keys:
            strange.append(item.name)
            continue
        _put(plan, 'videos/%s/%s/%s' % (part, class_names[keys[class_key(name)]], os.path.basename(item.name)), item)
    return Placed(plan, list(class_names), strange)


def _is_replacement(item: Item) -> bool:
    """Whether a video stands for a broken one of the same name: CVDF's replacement_for_corrupted_k400."""
    return any(name.lower().startswith('replacement') for name in _named_parts(item))


def _part_and_class(item: Item, keys: Dict[str, int]) -> Tuple[str, str]:
    """('train' or 'val', class) by the folders that a file lies in; 'test', '' where they do not say."""
    parts = _named_parts(item)
    part = next((PARTS[name.lower()] for name in parts if name.lower() in PARTS), 'test')
    return part, next((name for name in reversed(parts) if class_key(name) in keys), '')


def _csv_rows(lists: Iterable[Item]) -> List[Tuple[Tuple[str, int], Tuple[str, str]]]:
    """((identifier, start), (part, class)) of Kinetics' csv files; the part is the csv's name."""
    rows: List[Tuple[Tuple[str, int], Tuple[str, str]]] = []
    for item in lists:
        words = re.split(r'[^a-z]+', os.path.splitext(os.path.basename(item.name))[0].lower())
        part = next((PARTS[word] for word in words if word in PARTS), None)
        if part is None or part == 'test' or not item.name.lower().endswith('.csv'):
            continue
        with open(item.place, encoding='utf-8-sig', newline='') as file:
            for line in csv.DictReader(file):
                if line.get('youtube_id') and line.get('label') and (line.get('time_start') or '').isdigit():
                    rows.append(((line['youtube_id'], int(line['time_start'])), (part, line['label'])))
    return rows


def _spelled(name: str) -> str:
    """A path as it is compared: macOS takes letters with accents apart."""
    return unicodedata.normalize('NFC', os.path.normpath(name))


def own_csv(path: str) -> Dict[str, OwnRow]:
    """path -> the rest, from a csv whose head names the columns path and label, and perhaps split and group. ListError
    for one that is wrong.
    """
    try:
        return _own_csv(path)
    except UnicodeDecodeError:
        raise ListError('%s: is not UTF-8; save it as such (in Excel: CSV UTF-8)' % path)


def _own_csv(path: str) -> Dict[str, OwnRow]:
    rows: Dict[str, OwnRow] = {}
    with open(path, encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(file)
        if not {'path', 'label'} <= set(reader.fieldnames or ()):
            raise ListError('%s:1: the head line must name the columns path and label; split (train or test) and group '
                            'may follow' % path)
        for line in reader:
            name = _spelled((line['path'] or '').strip().replace('\\', '/'))
            part = (line.get('split') or '').strip().lower()
            label = (line['label'] or '').strip()
            if not label or label.startswith('.') or not label.isprintable() or part not in ('',) + tuple(PARTS):
                raise ListError('%s:%d: a line holds path, label (which does not begin with a dot) and, where they are '
                                'used, split (train or test) and group' % (path, reader.line_num))
            row = OwnRow(label, PARTS.get(part, ''), (line.get('group') or '').strip())
            if rows.setdefault(name, row) != row:
                raise ListError('%s:%d: %s stands there twice, as two different things' % (path, reader.line_num, name))
    return rows


def own_folder(found: Gathered, csv_path: Optional[str]) -> Placed:
    """Videos into videos/<class>/: by a csv, else by the folder that each lies in (a folder train, val or test above it
    decides the part). ValueError for videos of one name and class that differ.
    """
    rows = own_csv(csv_path) if csv_path else None
    plan: Plan = {}
    said: Dict[str, OwnRow] = {}
    strange, used = [], set()
    for item in found.videos:
        row = _own_row(item) if rows is None else rows.get(_spelled(item.name))
        if row is None:
            strange.append(item.name)
            continue
        used.add(_spelled(item.name))
        target = 'videos/%s/%s' % (row.label.replace('/', '_'), os.path.basename(item.name))
        if plan.get(target, item.place) != item.place:  # v.mp4 in two folders of one class
            target = 'videos/%s/%s' % (row.label.replace('/', '_'), item.name.replace('/', '_'))
        _put(plan, target, item)
        said[target] = row
    if rows is not None and set(rows) - used:
        gone = sorted(set(rows) - used)
        raise ValueError('%s names %d files that are not in the source: %s; paths are relative to --source'
                         % (csv_path, len(gone), ', '.join(gone[:5])))
    names = sorted({row.label for row in said.values()}, key=lambda name: (name.casefold(), name))
    folders = Counter(name.replace('/', '_') for name in names)
    alike = [name for name in names if folders[name.replace('/', '_')] > 1]
    if alike:
        raise ValueError('the classes %s would share a folder: rename one' % ', '.join(alike))
    return Placed(plan, names, strange, said)


def _own_row(item: Item) -> Optional[OwnRow]:
    parts = _named_parts(item)
    if not parts or parts[-1].lower() in PARTS:
        return None
    part = next((PARTS[name.lower()] for name in parts[:-1] if name.lower() in PARTS), '')
    return OwnRow(parts[-1], part, '')


def apart(placed: Placed) -> Placed:
    """The same, where two videos of a folder that differ in their endings alone have names of their own: each gets a
    folder of frames, or a re-encoded film, by its name without the ending.
    """
    plan, said, taken = {}, {}, {}  # type: Plan, Dict[str, OwnRow], Dict[str, str]
    for target, place in sorted(placed.plan.items()):
        stem, ending = os.path.splitext(target)
        name = target if taken.setdefault(stem, target) == target else '%s_%s%s' % (stem, ending[1:], ending)
        plan[name] = place
        if target in placed.said:
            said[name] = placed.said[target]
    return placed._replace(plan=plan, said=said)


def put(place: str, target: str, part: str) -> None:
    """A hard link where both are on one disk, else a copy, made at `part`, that appears when it is whole. What is there
    stays. ValueError where that differs.
    """
    if os.path.exists(target):
        if not os.path.samefile(place, target) and os.path.getsize(place) != os.path.getsize(target):
            raise ValueError('%s is there already and differs from %s; remove one, or give another --output'
                             % (target, place))
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(os.path.realpath(place), target)
    except OSError:  # another disk, or one without links
        os.makedirs(os.path.dirname(part), exist_ok=True)
        shutil.copy2(place, part)
        os.replace(part, target)
