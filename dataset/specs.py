"""The data sets, a row each, and the one way from a name and a root to the lists of training and test videos."""
import os
import time
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from data.video_list import VideoList
from dataset import motion10, relations
from dataset.flow import flow_remedy, look_for_flow, refuse_source
from dataset.index import attach_index
from dataset.layouts import Tree, absent, find_file, find_tree, homes_below, some_of, subfolders
from dataset.lists import Row, place_of, read_class_names, read_class_table, read_counts
from dataset.packed import is_store, packed_parts
from dataset.rows import (
    DataNotFound,
    ListNames,
    Rows,
    Search,
    folder_rows,
    hmdb_rows,
    kinetics_rows,
    listed_rows,
    named_rows,
    official_rows,
)

FILES = ('auto', 'video', 'rawframes')
SOURCES = FILES + ('packed',)
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FACTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'facts')


class VideoSet(NamedTuple):
    """One split of a data set as it was found."""

    name: str
    class_names: List[str]
    train: VideoList
    test: VideoList
    notes: List[str]  # for the log: where videos and lists came from, what is missing


class DatasetSpec(NamedTuple):
    """A data set. `defaults` are training options that suit it better than the recipes' own, by field of the
    configuration. Sides are relative to the crop: `scale_range` of the short side in training, `eval_scale` in tests.
    """

    name: str
    aliases: Tuple[str, ...]
    default_root: str  # below the project
    classes: Union[str, Tuple[str, ...], None]  # file of dataset/facts, names, or None: found
    homes: Tuple[str, ...]  # where to look below the root, '' is the root itself
    finders: Tuple[Callable[[Search], Optional[Rows]], ...]  # ways to the rows; the first that finds some wins
    list_names: Tuple[ListNames, ...]
    remedy: str
    num_splits: int = 1
    parted: bool = False  # training and test videos lie in folders of their own
    tolerant: bool = False  # listed videos that are not there are left out and counted, not refused
    defaults: Mapping[str, Any] = MappingProxyType({})
    scale_range: Tuple[float, float] = (1.0, 340 / 224)
    eval_scale: float = 256 / 224
    published: Tuple[int, int] = (0, 0)  # training and test videos of a split where it is complete; 0 unknown
    counts: Optional[Callable[[], List[List[int]]]] = None  # clips of each class and group where it is complete
    render: Optional[Callable[[str], bool]] = None  # makes the videos on first use; True where it did


_RENDERED = 'It is rendered as video files: leave --source at auto; without its folder data/ it is rendered again.'
MOTION10_DEFAULTS: Dict[str, Any] = {
    'crop_size': 32, 'clip_length': 8, 'train_frame_interval': motion10.HOLD, 'val_frame_interval': motion10.HOLD,
    'batch_size': 16, 'lr_base': 0.003, 'lr_steps': ('60%', '85%'), 'warmup_steps': 30, 'end_epoch': 3,
    'pretrained': False, 'eval_batch_size': 50, 'precise_bn': False,
}
RELATIONS_DEFAULTS = dict(MOTION10_DEFAULTS, clip_length=4, train_frame_interval=relations.INTERVAL,
                          val_frame_interval=relations.INTERVAL, lr_base=0.005, lr_steps=('80%', '95%'))
_SPECS = (
    DatasetSpec(
        name='UCF101', aliases=('ucf-101', 'ucf_101'), default_root='dataset/UCF101/raw',
        classes='ucf101_clips_per_group.tsv', num_splits=3, finders=(listed_rows, official_rows, named_rows),
        homes=('', 'data', 'data/ucf101', 'data/UCF-101', 'ucf101', 'UCF-101'),
        list_names=(
            ListNames('reference', 'list_cvt/trainlist{split:02d}.txt', 'list_cvt/testlist{split:02d}.txt'),
            ListNames('videos', 'ucf101_train_split_{split}_videos.txt', 'ucf101_val_split_{split}_videos.txt'),
            ListNames('rawframes', 'ucf101_train_split_{split}_rawframes.txt',
                      'ucf101_val_split_{split}_rawframes.txt')),
        counts=lambda: read_counts(os.path.join(FACTS, 'ucf101_clips_per_group.tsv')),
        remedy='Get UCF101.rar from https://www.crcv.ucf.edu/data/UCF101.php and unpack it in that folder as '
               'data/<Class>/v_<Class>_gGG_cCC.avi, or give --data-root another folder.'),
    DatasetSpec(
        name='HMDB51', aliases=('hmdb-51', 'hmdb_51', 'hmdb'), default_root='dataset/HMDB51/raw',
        classes='hmdb51_classes.tsv', num_splits=3, finders=(listed_rows, hmdb_rows),
        homes=('', 'data', 'data/hmdb51', 'data/HMDB51', 'hmdb51', 'HMDB51'), published=(3570, 1530),
        list_names=(
            ListNames('reference', 'list_cvt/hmdb51_split{split}_train.txt', 'list_cvt/hmdb51_split{split}_test.txt'),
            ListNames('videos', 'hmdb51_train_split_{split}_videos.txt', 'hmdb51_val_split_{split}_videos.txt'),
            ListNames('rawframes', 'hmdb51_train_split_{split}_rawframes.txt',
                      'hmdb51_val_split_{split}_rawframes.txt')),
        remedy='Get the videos and the "three splits" of HMDB-51 from https://serre-lab.clps.brown.edu and unpack them '
               'in that folder as data/<class>/<video>.avi and testTrainMulti_7030_splits/, or give --data-root.'),
    DatasetSpec(
        name='Kinetics400', aliases=('kinetics', 'kinetics-400', 'k400'), default_root='dataset/Kinetics/raw',
        classes='kinetics400_classes.tsv', parted=True, tolerant=True,
        finders=(listed_rows, kinetics_rows, folder_rows), homes=('', 'data', 'data/kinetics400', 'kinetics400'),
        list_names=(
            ListNames('reference', 'list_cvt/kinetics_train*.txt', 'list_cvt/kinetics_val*.txt'),
            ListNames('videos', 'kinetics400_train_list_videos.txt', 'kinetics400_val_list_videos.txt'),
            ListNames('rawframes', 'kinetics400_train_list_rawframes.txt', 'kinetics400_val_list_rawframes.txt')),
        remedy='Put the videos in that folder as data/train/<class>/<video>.mp4 and data/val/<class>/<video>.mp4, or '
               'give --data-root another folder.'),
    DatasetSpec(
        name='motion10', aliases=('motion-10', 'motion_10'), default_root='dataset/motion10/raw',
        classes=tuple(motion10.MOTIONS), num_splits=3, finders=(named_rows,), homes=('data',), list_names=(),
        counts=lambda: [[motion10.CLIPS_PER_GROUP] * motion10.GROUPS for _ in motion10.MOTIONS],
        render=motion10.render, defaults=MOTION10_DEFAULTS, scale_range=(1.0, 1.15),
        remedy=_RENDERED),
    DatasetSpec(
        name='relations', aliases=(), default_root='dataset/relations/raw',
        classes=tuple(relations.RELATIONS), num_splits=3, finders=(named_rows,), homes=('data',), list_names=(),
        counts=lambda: [[relations.CLIPS_PER_GROUP] * relations.GROUPS for _ in relations.RELATIONS],
        render=relations.render, defaults=RELATIONS_DEFAULTS, scale_range=(1.0, 1.15), remedy=_RENDERED),
    DatasetSpec(
        name='folder', aliases=('own',), default_root='dataset/folder/raw', classes=None, parted=True,
        finders=(listed_rows, folder_rows), homes=('', 'data'),
        list_names=(
            ListNames('videos', 'train.txt', 'test.txt'), ListNames('videos', 'train.txt', 'val.txt'),
            ListNames('rawframes', 'train_rawframes.txt', 'test_rawframes.txt'),
            ListNames('rawframes', 'train_rawframes.txt', 'val_rawframes.txt')),
        remedy='Put your videos there as train/<class>/<video> and test/<class>/<video>, or as any files with '
               'the lists train.txt and test.txt (`path label`) and classes.txt, or give --data-root another folder.'),
)
DATASETS: Dict[str, DatasetSpec] = {spec.name: spec for spec in _SPECS}


def find_dataset(name: str) -> DatasetSpec:
    """The spec by its name or an alias, in any case. ValueError naming all of them for any other name."""
    for spec in _SPECS:
        if name.lower() in (spec.name.lower(),) + spec.aliases:
            return spec
    raise ValueError('--dataset %s: takes one of %s' % (name, ', '.join(DATASETS)))


class Found(NamedTuple):
    """The rows of a split and where their paths lead from; whether anything lies there is not known yet."""

    root: str
    class_names: List[str]
    tree: Tree
    rows: Rows
    notes: List[str]


def _checked_root(spec: DatasetSpec, root: Optional[str], split: int, source: str, sources: Sequence[str]) -> str:
    """The root in full. ValueError for a split or source that does not exist."""
    if not 1 <= split <= spec.num_splits:
        raise ValueError('--split %d: %s has the splits 1 to %d' % (split, spec.name, spec.num_splits))
    if source not in sources:
        raise ValueError('--source %s: takes one of %s' % (source, ', '.join(sources)))
    return os.path.abspath(root or os.path.join(PROJECT, spec.default_root))


def find_rows(spec: DatasetSpec, root: Optional[str] = None, split: int = 1, source: str = 'auto') -> Found:
    """The rows of a split below `root` (default: the spec's own folder); errors as of `load_videos`.

    Renders the set first where it is a rendered one.
    """
    root = _checked_root(spec, root, split, source, FILES)
    if is_store(root):
        raise ValueError('--data-root %s is a packed store: give the data set that it was packed from' % root)
    notes = _rendered(spec, root)
    tree, class_names = _look_around(spec, root, source)
    search = Search(tree, class_names, split, spec.list_names, spec.counts() if spec.counts else None)
    rows = next((rows for rows in (find(search) for find in spec.finders) if rows is not None), None)
    if rows is None or not rows.train or not rows.test:
        part = 'rows' if rows is None else 'test rows' if rows.train else 'training rows'
        raise DataNotFound('%s: no %s found for the %s below %s\n%s'
                           % (spec.name, part, 'videos' if tree.kind == 'video' else 'raw frames', root, spec.remedy))
    notes += ['%s: %s below %s' % (spec.name, 'videos' if tree.kind == 'video' else 'raw frames', tree.train_root)]
    return Found(root, class_names, tree, rows, notes + rows.notes)


def load_videos(spec: DatasetSpec, root: Optional[str] = None, split: int = 1, source: str = 'auto',
                modality: str = 'rgb') -> VideoSet:
    """The videos of a split below `root` (default: the spec's own folder), all known to be there, with what the
    index says of them where there is one; or those of the packed store that `root` is. For flow, their optical flow.

    DataNotFound where there is nothing to read; ValueError for a list that is wrong or names absent files, for a store
    that is damaged or does not fit its source, for a split or source that does not exist, and for flow of a source
    that has none.
    """
    root = _checked_root(spec, root, split, source, SOURCES)
    packed = source == 'packed' or source == 'auto' and is_store(root)
    if modality == 'flow':
        return _load_flow(spec, root, split, source, packed)
    if packed:
        return _at_rest(VideoSet(spec.name, *packed_parts(root, spec.name, split)))
    root, class_names, tree, rows, notes = find_rows(spec, root, split, source)
    train = _video_list(spec, rows.train, rows.train_list, tree.train_root, tree.kind, notes)
    test = _video_list(spec, rows.test, rows.test_list, tree.test_root, tree.kind, notes)
    notes += filter(None, (attach_index(root, train, 'training'), attach_index(root, test, 'test')))
    return _at_rest(VideoSet(spec.name, class_names, train, test, notes))


def _at_rest(videos: VideoSet) -> VideoSet:
    videos.train.rest()
    videos.test.rest()
    return videos


def _load_flow(spec: DatasetSpec, root: str, split: int, source: str, packed: bool) -> VideoSet:
    remedy = flow_remedy(spec.name, root, spec.render is not None)
    refuse_source(source, packed, remedy)
    _, class_names, tree, rows, notes = find_rows(spec._replace(remedy=remedy), root, split, 'rawframes')
    train = _video_list(spec, rows.train, rows.train_list, tree.train_root, 'flow', notes)
    test = _video_list(spec, rows.test, rows.test_list, tree.test_root, 'flow', notes)
    notes += look_for_flow(train, 'training', remedy) + look_for_flow(test, 'test', remedy)
    return _at_rest(VideoSet(spec.name, class_names, train, test, notes))


def _rendered(spec: DatasetSpec, root: str) -> List[str]:
    if spec.render is None:
        return []
    began = time.time()
    return ['%s: rendered in %.1f seconds' % (spec.name, time.time() - began)] if spec.render(root) else []


def _look_around(spec: DatasetSpec, root: str, source: str) -> Tuple[Tree, List[str]]:
    """Where things lie, and the names of the classes."""
    homes = homes_below(root, spec.homes)
    names, parted = _known_names(spec, homes), spec.parted
    if spec.classes is None:
        parted = names is None
    tree = find_tree(homes, names if spec.classes is not None else None, source, parted)
    if tree is None:
        what = {'auto': 'videos and no raw frames', 'video': 'videos', 'rawframes': 'raw frames'}[source]
        raise DataNotFound('%s: no %s found below %s\n%s' % (spec.name, what, root, spec.remedy))
    return tree, names or sorted(subfolders(tree.train_root), key=lambda name: (name.casefold(), name))


def published_names(spec: DatasetSpec) -> Optional[List[str]]:
    """Class names in label order of a data set whose classes are known; None where they are the user's own."""
    if isinstance(spec.classes, str):
        return read_class_table(os.path.join(FACTS, spec.classes))
    return None if spec.classes is None else list(spec.classes)


def _known_names(spec: DatasetSpec, homes: List[str]) -> Optional[List[str]]:
    path = find_file(homes, ['classes.txt']) if spec.classes is None else None
    return published_names(spec) if path is None else read_class_names(path)


def _video_list(spec: DatasetSpec, rows: List[Row], list_path: str, root: str, kind: str,
                notes: List[str]) -> VideoList:
    """The rows packed, once all are known to be there; a tolerant data set goes without those that are not."""
    gone = absent(rows, root, kind)
    names = [rows[place].path for place in sorted(gone)]
    if gone and (not spec.tolerant or len(gone) == len(rows)):
        raise ValueError('%s: %d of %d rows name what is not below %s: %s; put them there, or take them out of the list'
                         % (place_of(list_path, names[0]), len(gone), len(rows), root, some_of(names)))
    if gone:
        notes.append('%s: %d of %d videos are not there and are left out: %s'
                     % (list_path, len(gone), len(rows), some_of(names)))
        rows = [row for place, row in enumerate(rows) if place not in gone]
    less = kind == 'flow'  # it leads from a frame to the next
    counts = [max(0, row.num_frames - less) for row in rows] if any(row.num_frames for row in rows) else None
    return VideoList(root, [row.path for row in rows], [row.label for row in rows], kind, counts)
