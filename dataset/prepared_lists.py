"""The rows of a prepared tree, from its annotations or names, and the lists of both families that are made of them."""
import os
from typing import Callable, Dict, List, Optional, Sequence, Set, Tuple

from dataset import placing
from dataset.frames import count_frames
from dataset.index import Record
from dataset.layouts import REENCODED, absent, class_folder_rows, grouped_rows, some_of
from dataset.lists import Row, write_list
from dataset.rows import DataNotFound, Rows, as_on_disk, listed_rows, missing_clips
from dataset.specs import DatasetSpec, Found, find_rows
from dataset.splits import divide, join_groups, sources_of

Say = Callable[[str], None]


def _in_parts(spec: DatasetSpec) -> bool:
    """Whether training and test videos lie in folders of their own, which their paths in lists do not name."""
    return spec.parted and spec.classes is not None


def write_lists(spec: DatasetSpec, output: str, rows: Rows, split: int) -> None:
    """The lists of one split: of videos in each family, and of raw frames for the videos that have them."""
    done = set()
    for names in spec.list_names:
        if names.family in done:  # a second spelling that is read too
            continue
        done.add(names.family)
        below = ('train', 'val') if _in_parts(spec) else ('', '')
        for name, part, folder in zip((names.train, names.test), (rows.train, rows.test), below):
            if names.family == 'rawframes':
                part = _framed(os.path.join(output, 'rawframes', folder), part)
                if not part:
                    continue
            path = os.path.join(output, name.format(split=split).replace('*', ''))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write_list(path + '.part', names.family, part)
            os.replace(path + '.part', path)


def _framed(folder: str, rows: Sequence[Row]) -> List[Row]:
    """Rows of the frame folders of videos; those that are not there are left out."""
    counted = ((row._replace(path=path), os.path.join(folder, path)) for row in rows
               for path in [os.path.splitext(row.path)[0]])
    return [row._replace(num_frames=count_frames(place)) for row, place in counted if os.path.isdir(place)]


def rows_from_tree(spec: DatasetSpec, output: str, split: int) -> Found:
    """The rows of a split from annotations or names, whatever lists an earlier run has left. DataNotFound."""
    finders = tuple(find for find in spec.finders if find is not listed_rows)
    try:
        return find_rows(spec._replace(finders=finders), output, split, 'video')
    except DataNotFound as error:
        raise DataNotFound('%s\nHere: give the same command, with what is missing added to --source.' % error)


def _num_frames(record: Optional[Record]) -> int:
    return 0 if record is None else record.facts.num_frames


def own_rows(output: str, placed: placing.Placed, known: Dict[str, Record], division: Tuple[float, int],
             say: Say) -> Rows:
    """The rows of a user's own videos: by the parts that folders or csv name, else divided by source, by `division`
    (share of the test part, seed). `known`: what the index says, by path below the output; what cannot be read at all
    is left out.
    """
    rows = class_folder_rows(os.path.join(output, 'videos'), placed.class_names, 'video')
    unread = [row.path for row in rows if not _num_frames(known.get('videos/' + row.path))]
    if unread:
        say('%d videos cannot be read and are left out of the lists: %s' % (len(unread), some_of(unread)))
    rows = [row for row in rows if _num_frames(known.get('videos/' + row.path))]
    said = [placed.said.get('videos/' + row.path, placing.OwnRow('', '', '')) for row in rows]
    parts: Set[str] = {one.part for one in said}
    if 'train' in parts and parts & {'val', 'test'}:
        tested = 'val' if 'val' in parts else 'test'
        left = sum(one.part not in ('train', tested) for one in said)
        if left:
            say('%d videos are in neither train nor %s and are left out of the lists' % (left, tested))
        train, test = ([row for row, one in zip(rows, said) if one.part == part] for part in ('train', tested))
        leaking = sorted(set.intersection(*({one.group for one in said if one.group and one.part == part}
                                            for part in ('train', tested))))
        if leaking:
            say('%d groups are in both train and %s: %s' % (len(leaking), tested, some_of(leaking)))
    else:
        groups = [one.group or group for one, group in zip(said, sources_of(rows))]
        groups = join_groups(groups, [known['videos/' + row.path].content for row in rows])
        split = divide(rows, groups, placed.class_names, *division)
        for note in split.notes + ['%d videos of %d sources: %d to train with, %d to test with' % (
                len(rows), len(set(groups)), len(split.train), len(split.test))]:
            say(note)
        train, test = split.train, split.test
    folder = os.path.join(output, REENCODED)
    if os.path.isdir(folder):
        train, test = (as_on_disk(part, folder, 'video') for part in (train, test))
    return Rows(train, test, '', '', [])


def missing_of(spec: DatasetSpec, found: Found) -> Set[str]:
    """Clips of the published set, and rows of annotations, that are not there."""
    gone: Set[str] = set()
    for rows, root in ((found.rows.train, found.tree.train_root), (found.rows.test, found.tree.test_root)):
        prefix = os.path.basename(root) + '/' if _in_parts(spec) else ''
        gone |= {prefix + rows[place].path for place in absent(rows, root, 'video')}
    if spec.counts is not None:
        videos = grouped_rows(class_folder_rows(found.tree.train_root, found.class_names, 'video'), found.class_names)
        gone |= set(missing_clips(videos, found.class_names, spec.counts()))
    return gone
