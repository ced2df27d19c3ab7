"""Where a data set's videos, frame folders and lists lie below its root: found by looking."""
import glob
import os
import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from dataset.lists import Row, class_key, class_keys

VIDEO_ENDINGS = ('.avi', '.mp4', '.mkv', '.mov', '.webm', '.mpg', '.mpeg', '.m4v', '.flv', '.ogv', '.wmv')
FOLDERS = {'video': ('videos', ''), 'rawframes': ('rawframes',)}
NAMED_AT_MOST = 5  # names in a message; the rest are counted


class Tree(NamedTuple):
    """Where the videos (or folders of frames) of both parts lie; lists give paths below these folders."""

    kind: str  # 'video' or 'rawframes'
    train_root: str
    test_root: str
    homes: List[str]  # the folders where lists may lie


def listed(folder: str) -> List[str]:
    """Names in a folder, sorted; empty where there is none. Hidden ones are left out."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except (FileNotFoundError, NotADirectoryError):
        return []


def subfolders(folder: str) -> List[str]:
    """Names of the folders in a folder, sorted, as in `listed`."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith('.') and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def homes_below(root: str, places: Sequence[str]) -> List[str]:
    """Those of `places` below the root that exist; '' is the root itself."""
    folders = [os.path.join(root, place) if place else root for place in places]
    return [folder for folder in folders if os.path.isdir(folder)]


def has_class_folder(folder: str, keys: Optional[Mapping[str, int]]) -> bool:
    """Whether a folder holds a folder named as one of the classes; any folder will do where `keys` is None."""
    return any(keys is None or class_key(name) in keys for name in subfolders(folder))


def find_tree(homes: Sequence[str], class_names: Optional[Sequence[str]], source: str, parted: bool) -> Optional[Tree]:
    """The first tree of class folders; None where there is none.

    `source` auto takes videos where there are any. `parted`: training and test videos lie in folders of their own,
    whose names begin with train and with val or test.
    """
    keys = None if class_names is None else class_keys(class_names)
    for kind in (('video', 'rawframes') if source == 'auto' else (source,)):
        for home in homes:
            for name in FOLDERS[kind]:
                folder = os.path.join(home, name) if name else home
                parts = _parts(folder, keys) if parted else (folder, folder)
                if parts and has_class_folder(parts[0], keys):
                    return Tree(kind, parts[0], parts[1], list(homes))
    return None


def _parts(folder: str, keys: Optional[Mapping[str, int]]) -> Optional[Tuple[str, str]]:
    """The folders of training and test videos in a folder."""
    names = [name for name in subfolders(folder) if name.lower().startswith(('train', 'val', 'test'))]
    names = [name for name in names if has_class_folder(os.path.join(folder, name), keys)]
    train = [name for name in names if name.lower().startswith('train')]
    test = [name for begin in ('val', 'test') for name in names if name.lower().startswith(begin)]
    return (os.path.join(folder, train[0]), os.path.join(folder, test[0])) if train and test else None


def find_file(homes: Iterable[str], names: Iterable[str]) -> Optional[str]:
    """The first file in one of the homes that fits a name (which may hold folders and `*`), in the order of names."""
    homes = list(homes)
    for name in names:
        for home in homes:
            for path in sorted(glob.glob(os.path.join(glob.escape(home), name))):
                if os.path.isfile(path):
                    return path
    return None


def _items(folder: str, kind: str) -> List[str]:
    """The videos (or folders of frames) in a folder."""
    return subfolders(folder) if kind == 'rawframes' else [
        name for name in listed(folder) if name.lower().endswith(VIDEO_ENDINGS)]


def class_folder_rows(root: str, class_names: Sequence[str], kind: str) -> List[Row]:
    """A row for each video in the class folders below the root, in label order, then by name."""
    by_key = {class_key(name): name for name in reversed(subfolders(root))}
    rows = []
    for label, name in enumerate(class_names):
        folder = by_key.get(class_key(name))
        if folder is not None:
            rows += [Row('%s/%s' % (folder, item), label) for item in _items(os.path.join(root, folder), kind)]
    return rows


class GroupedVideo(NamedTuple):
    """A row whose name says its group: v_<Class>_gGG_cCC."""

    row: Row
    group: int
    clip: int


GROUPED_NAME = re.compile(r'v_(.+)_g(\d\d)_c(\d\d)(\.[^.]+)?$')


def grouped_rows(rows: Iterable[Row], class_names: Sequence[str]) -> List[GroupedVideo]:
    """The rows with UCF-101's naming and their own class's name in it, whatever the case; others are left out."""
    found = []
    for row in rows:
        match = GROUPED_NAME.match(row.path.rsplit('/', 1)[1])
        if match and class_key(match.group(1)) == class_key(class_names[row.label]):
            found.append(GroupedVideo(row, int(match.group(2)), int(match.group(3))))
    return found


def split_by_group(videos: Iterable[GroupedVideo], split: int) -> Tuple[List[Row], List[Row]]:
    """(training, test) rows by UCF-101's rule: groups 1-7 test in split 1, 8-14 in split 2, 15-21 in split 3."""
    train: List[Row] = []
    test: List[Row] = []
    for video in videos:
        (test if (video.group - 1) // 7 == split - 1 else train).append(video.row)
    return train, test


def absent(rows: Sequence[Row], root: str, kind: str) -> Set[int]:
    """Places of the rows whose file (or frame folder) is not below the root; each folder is listed once."""
    present: Dict[str, Set[str]] = {}
    gone = set()
    for place, row in enumerate(rows):
        folder, _, name = row.path.rpartition('/')
        if folder not in present:
            path = os.path.join(root, folder)
            present[folder] = set(listed(path) if kind == 'video' else subfolders(path))
        if name not in present[folder]:
            gone.add(place)
    return gone


def without_ending(rows: Iterable[Row]) -> List[Row]:
    """Rows of video files as rows of their frame folders."""
    return [row._replace(path=os.path.splitext(row.path)[0]) for row in rows]


def some_of(names: Sequence[str]) -> str:
    """`a, b, c, d, e and 8 more`."""
    text = ', '.join(names[:NAMED_AT_MOST])
    return text + (' and %d more' % (len(names) - NAMED_AT_MOST) if len(names) > NAMED_AT_MOST else '')
