"""From what lies below a root to the rows of one split: the ways, each a function of a Search. None: not this way."""
import os
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from dataset import lists
from dataset.layouts import (
    GroupedVideo,
    Tree,
    class_folder_rows,
    find_file,
    grouped_rows,
    items_in,
    listed,
    some_of,
    split_by_group,
    subfolders,
    without_ending,
)
from dataset.lists import Row, class_key

HMDB_FOLDERS = ('testTrainMulti_7030_splits', 'annotations', 'splits', 'list')
UCF_FOLDERS = ('annotations', 'ucfTrainTestlist')


class DataNotFound(FileNotFoundError):
    """Videos or lists that are not in place. Two lines: what is missing; what to do."""


class ListNames(NamedTuple):
    """A family of lists and the names of its two files below a home; `{split}` is the split, `*` anything."""

    family: str
    train: str
    test: str


class Search(NamedTuple):
    """What is looked for, and where."""

    tree: Tree
    class_names: List[str]
    split: int
    list_names: Tuple[ListNames, ...]
    counts: Optional[List[List[int]]]  # clips of each class (outer) and group (inner) of a complete data set


class Rows(NamedTuple):
    """The rows of both parts, the lists they are from ('' where they are from names) and notes for the log."""

    train: List[Row]
    test: List[Row]
    train_list: str
    test_list: str
    notes: List[str]


def listed_rows(search: Search) -> Optional[Rows]:
    """Rows from a pair of ready lists, lists of the tree's own kind first. DataNotFound for one without the other."""
    as_frames = search.tree.kind == 'rawframes'
    families = sorted(search.list_names, key=lambda names: (names.family == 'rawframes') != as_frames)
    half = ''
    for names in families:
        wanted = [name.format(split=search.split) for name in (names.train, names.test)]
        train, test = (find_file(search.tree.homes, [name]) for name in wanted)
        if names.family == 'rawframes' and not as_frames:
            continue
        if train and test:
            rows = [lists.read_list(path, names.family, len(search.class_names)) for path in (train, test)]
            return _from_lists(rows, train, test, as_frames and names.family != 'rawframes')
        if train or test:
            half = half or '%s is there, but %s is not' % (train or test, wanted[1] if train else wanted[0])
    if half:
        raise DataNotFound(half + '\nPut both lists there, or remove the one.')
    return None


def _from_lists(rows: Sequence[List[Row]], train: str, test: str, as_folders: bool) -> Rows:
    parts = [without_ending(part) if as_folders else part for part in rows]
    return Rows(parts[0], parts[1], train, test, ['lists: %s, %s' % (train, test)])


def _from_annotations(search: Search, rows: Sequence[List[Row]], train: str, test: str) -> Rows:
    """Rows as a data set's own annotations name them -> rows of the tree."""
    tree = search.tree
    parts = [without_ending(part) if tree.kind == 'rawframes' else part for part in rows]
    parts = [as_on_disk(part, root, tree.kind) for part, root in zip(parts, (tree.train_root, tree.test_root))]
    return _from_lists(parts, train, test, False)


def as_on_disk(rows: Sequence[Row], root: str, kind: str) -> List[Row]:
    """Rows with the folder and, of videos, the file ending that are there below `root`: a video may have been
    re-encoded, or end in .AVI where annotations write .avi. As they were where nothing fits.
    """
    folders = {class_key(name): name for name in reversed(subfolders(root))}
    found: Dict[str, Dict[str, str]] = {}  # folder -> name, with its ending or without -> name
    result = []
    for row in rows:
        folder, _, name = row.path.rpartition('/')
        folder = folder if folder in folders.values() else folders.get(class_key(folder), folder)
        if folder not in found:
            names = items_in(os.path.join(root, folder), kind)
            found[folder] = {os.path.splitext(one)[0]: one for one in names} if kind == 'video' else {}
            found[folder].update((one, one) for one in names)
        stem = os.path.splitext(name)[0] if kind == 'video' else name
        result.append(row._replace(path='%s/%s' % (folder, found[folder].get(name, found[folder].get(stem, name)))))
    return result


def official_rows(search: Search) -> Optional[Rows]:
    """Rows from UCF-101's own annotations. ListError where its classInd.txt has other classes or another order."""
    for folder in UCF_FOLDERS:
        train, test = (find_file(search.tree.homes, ['%s/%slist%02d.txt' % (folder, part, search.split)])
                       for part in ('train', 'test'))
        if train and test:
            _check_class_index(os.path.join(os.path.dirname(train), 'classInd.txt'), search.class_names)
            rows = [lists.read_ucf_official(path, search.class_names) for path in (train, test)]
            return _from_annotations(search, rows, train, test)
    return None


def _check_class_index(path: str, class_names: Sequence[str]) -> None:
    if not os.path.isfile(path):
        return
    names = lists.read_class_index(path)
    for number, (found, wanted) in enumerate(zip(names, class_names), 1):
        if class_key(found) != class_key(wanted):
            raise lists.ListError('%s: class %d is %s, expected %s; is this the file of this data set?'
                                  % (path, number, found, wanted))
    if len(names) != len(class_names):
        raise lists.ListError('%s: names %d classes, not %d' % (path, len(names), len(class_names)))


def hmdb_rows(search: Search) -> Optional[Rows]:
    """Rows from HMDB-51's split files, one for each class."""
    wanted = ['%s_test_split%d.txt' % (name, search.split) for name in search.class_names]
    first = find_file(search.tree.homes, ['%s/%s' % (folder, wanted[0]) for folder in HMDB_FOLDERS] + [wanted[0]])
    if first is None:
        return None
    folder = os.path.dirname(first)
    gone = sorted(set(wanted) - set(listed(folder)))
    if gone:
        raise DataNotFound('%s lacks %s\nUnpack the split files of all %d classes there.'
                           % (folder, some_of(gone), len(wanted)))
    rows = [lists.read_hmdb_split(folder, search.class_names, search.split, mark) for mark in (lists.TRAIN, lists.TEST)]
    return _from_annotations(search, rows, folder, folder)


def kinetics_rows(search: Search) -> Optional[Rows]:
    """Rows from Kinetics' own csv files, found among the class folders whatever their spelling and file ending."""
    places = ('', 'annotations/', 'list/', 'kinetics400/')
    train = find_file(search.tree.homes, [place + name for place in places for name in ('train.csv', '*_train.csv')])
    test = find_file(search.tree.homes, [place + name for place in places
                                         for name in ('val.csv', 'validate.csv', '*_val.csv', '*_validate.csv')])
    if not train or not test:
        return None
    rows = [lists.read_kinetics_csv(path, search.class_names) for path in (train, test)]
    return _from_annotations(search, rows, train, test)


def named_rows(search: Search) -> Optional[Rows]:
    """Rows from folder and file names alone, by UCF-101's naming and rule of groups; what is missing is named."""
    all_rows = class_folder_rows(search.tree.train_root, search.class_names, search.tree.kind)
    videos = grouped_rows(all_rows, search.class_names)
    if not videos:
        return None
    notes = ['labels and split %d from folder and file names' % search.split]
    if len(videos) < len(all_rows):
        notes.append('%d files are not named v_<Class>_gGG_cCC and are left out' % (len(all_rows) - len(videos)))
    if search.counts is not None:
        missing = missing_clips(videos, search.class_names, search.counts)
        if missing:
            expected = sum(map(sum, search.counts))
            notes.append('{:,} of {:,} videos are missing: {}'.format(len(missing), expected, some_of(missing)))
    train, test = split_by_group(videos, search.split)
    return Rows(train, test, '', '', notes)


def missing_clips(videos: Sequence[GroupedVideo], class_names: Sequence[str], counts: List[List[int]]) -> List[str]:
    """Names of the clips of a complete data set, `counts` by class (outer) and group (inner), that are not there."""
    present = {(video.row.label, video.group, video.clip) for video in videos}
    return ['v_%s_g%02d_c%02d' % (class_names[label], group, clip) for label, groups in enumerate(counts)
            for group, clips in enumerate(groups, 1) for clip in range(1, clips + 1)
            if (label, group, clip) not in present]


def folder_rows(search: Search) -> Optional[Rows]:
    """Rows from class folders below a training and a test folder. ValueError for a test folder of no known class."""
    tree, parts = search.tree, []
    known = lists.class_keys(search.class_names)
    for root in (tree.train_root, tree.test_root):
        strange = [name for name in subfolders(root) if class_key(name) not in known]
        if strange:
            raise ValueError('%s holds folders of no class: %s; rename or remove them (a class needs a folder of the '
                             'same name below %s)' % (root, some_of(strange), tree.train_root))
        parts.append(class_folder_rows(root, search.class_names, tree.kind))
    if not parts[0]:
        return None
    note = 'rows: the class folders of %s and %s' % (tree.train_root, tree.test_root)
    return Rows(parts[0], parts[1], '', '', [note])
