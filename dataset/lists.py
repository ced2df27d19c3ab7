"""Every list format there is: read, checked line by line, and written. A bad line is named as file:line."""
import csv
import os
import re
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, NamedTuple, NoReturn, Sequence, Tuple

TRAIN, TEST = 1, 2  # the marks of HMDB-51's split files


class Row(NamedTuple):
    """A video: its path below the folder of videos (or of frame folders), label from 0, frame count (0: unknown)."""

    path: str
    label: int
    num_frames: int = 0


class ListError(ValueError):
    """A line of a list that cannot be meant; the message says file:line, what is wrong and what to do."""


Place = Tuple[str, int]  # file and line; put into words only where something is wrong, as lists can be long


def _refuse(place: Place, problem: str) -> NoReturn:
    raise ListError('%s:%d: %s' % (place + (problem,)))


def _lines(path: str) -> Iterator[Tuple[Place, str]]:
    """Place and text of each line that is not blank."""
    with open(path, encoding='utf-8-sig', errors='surrogateescape') as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if text:
                yield (path, number), text


def _integer(text: str, what: str, place: Place) -> int:
    if not text.isdecimal() and not re.match(r'[+-]?\d+$', text):
        _refuse(place, '%s is %r, not a whole number; see that the columns are in order' % (what, text))
    return int(text)


def _checked(row: Row, num_classes: int, place: Place) -> Row:
    """The row, if its path stays below the root and its label is one of the classes."""
    climbs = '..' in row.path and '..' in row.path.replace('\\', '/').split('/')
    if not row.path or climbs or os.path.isabs(row.path):
        _refuse(place, "path %r leaves the data root; write it relative to the root, without '..'" % row.path)
    if not 0 <= row.label < num_classes:
        _refuse(place, 'label %d is out of range: %d classes have the labels 0 to %d; correct the list, or give the '
                       '--dataset it belongs to' % (row.label, num_classes, num_classes - 1))
    if row.num_frames < 0:
        _refuse(place, 'total_frames is %d; count the frames, or write 0 for unknown' % row.num_frames)
    return row


class ListFormat(NamedTuple):
    """One family of lists: its columns in words, text -> columns, columns -> row, row number and row -> text."""

    columns: str
    split: Callable[[str], List[str]]
    row: Callable[[Sequence[str], Place], Row]
    line: Callable[[int, Row], str]


FORMATS: Dict[str, ListFormat] = {
    'reference': ListFormat(
        'video_id, label and relative/path with tabs between',
        lambda text: text.split('\t') if '\t' in text else text.split(None, 2),
        lambda columns, place: Row(columns[2].strip(), _integer(columns[1].strip(), 'label', place)),
        lambda number, row: '%d\t%d\t%s' % (number, row.label, row.path)),
    'videos': ListFormat(
        'path and label',
        lambda text: text.rsplit(None, 1),
        lambda columns, place: Row(columns[0], _integer(columns[1], 'label', place)),
        lambda number, row: '%s %d' % (row.path, row.label)),
    'rawframes': ListFormat(
        'dir, total_frames and label',
        lambda text: text.rsplit(None, 2),
        lambda columns, place: Row(columns[0], _integer(columns[2], 'label', place),
                                   _integer(columns[1], 'total_frames', place)),
        lambda number, row: '%s %d %d' % (row.path, row.num_frames, row.label)),
}
NUM_COLUMNS = {'reference': 3, 'videos': 2, 'rawframes': 3}


def read_list(path: str, family: str, num_classes: int) -> List[Row]:
    """The rows of a list of one of FORMATS, in the list's order. ListError for the first line that is wrong."""
    rows = []
    for place, text in _lines(path):
        columns = FORMATS[family].split(text)
        if len(columns) != NUM_COLUMNS[family]:
            _refuse(place, 'has %d column(s), not %d: a line holds %s'
                    % (len(columns), NUM_COLUMNS[family], FORMATS[family].columns))
        rows.append(_checked(FORMATS[family].row(columns, place), num_classes, place))
    return rows


def place_of(path: str, text: str) -> str:
    """file:line of the first line of a list that holds a text; the file alone where none does."""
    places = _lines(path) if os.path.isfile(path) else iter(())
    return next(('%s:%d' % place for place, line in places if text in line), path)


def write_list(path: str, family: str, rows: Iterable[Row]) -> None:
    """Writes rows so that `read_list` gives them back; same rows, same bytes. ValueError for a path with a line end."""
    lines = []
    for number, row in enumerate(rows):
        if re.search(r'[\r\n\t]', row.path):
            raise ValueError('%r cannot stand in a list: rename it without tabs and line ends' % row.path)
        lines.append(FORMATS[family].line(number, row) + '\n')
    with open(path, 'w', encoding='utf-8', errors='surrogateescape', newline='\n') as file:
        file.writelines(lines)


def read_class_table(path: str) -> List[str]:
    """Class names in label order from a table with a head line and the columns label (from 0) and class."""
    with open(path, encoding='utf-8', newline='') as file:
        return [columns[1] for columns in list(csv.reader(file, delimiter='\t'))[1:]]


def read_counts(path: str) -> List[List[int]]:
    """Clips of each class (outer) and group (inner) from a table as in `read_class_table`, a column a group."""
    with open(path, encoding='utf-8', newline='') as file:
        return [[int(count) for count in columns[2:]] for columns in list(csv.reader(file, delimiter='\t'))[1:]]


def read_class_index(path: str) -> List[str]:
    """Class names in label order from UCF-101's classInd.txt, whose lines are `number name`, numbered from 1."""
    names: List[str] = []
    for place, text in _lines(path):
        columns = text.split(None, 1)
        if len(columns) != 2:
            _refuse(place, 'has %d column(s), not 2: a line holds the number and the name of a class' % len(columns))
        if _integer(columns[0], 'number', place) != len(names) + 1:
            _refuse(place, 'class number %s, %d expected: the classes are numbered from 1 without a gap'
                    % (columns[0], len(names) + 1))
        names.append(columns[1])
    return names


def read_class_names(path: str) -> List[str]:
    """Class names in label order from a file of one name a line."""
    return [text for _, text in _lines(path)]


def write_class_names(path: str, names: Sequence[str]) -> None:
    """Writes one name a line, as `read_class_names` reads it."""
    with open(path, 'w', encoding='utf-8', errors='surrogateescape', newline='\n') as file:
        file.writelines(name + '\n' for name in names)


def class_key(name: str) -> str:
    """A name as it is compared: letters and digits alone, in small letters (folders write classes in many ways)."""
    return ''.join(letter for letter in name.casefold() if letter.isalnum())


def class_keys(class_names: Sequence[str]) -> Dict[str, int]:
    """Key of the class -> label."""
    return {class_key(name): label for label, name in enumerate(class_names)}


def read_ucf_official(path: str, class_names: Sequence[str]) -> List[Row]:
    """The rows of UCF-101's own trainlistNN.txt (`Class/video.avi number`) or testlistNN.txt (no number).

    The label is that of the class folder; a number that says another class is refused.
    """
    labels = class_keys(class_names)
    rows = []
    for place, text in _lines(path):
        name, number = (text.rsplit(None, 1) if re.search(r'\s\d+$', text) else [text, ''])
        folder, slash, video = name.partition('/')
        if not slash or not video:
            _refuse(place, '%r is no Class/video.avi' % name)
        if class_key(folder) not in labels:
            _refuse(place, '%r is none of the %d classes' % (folder, len(class_names)))
        label = labels[class_key(folder)]
        if number and int(number) != label + 1:
            _refuse(place, 'the number %s is not that of class %s, which is %d' % (number, folder, label + 1))
        rows.append(_checked(Row(name, label), len(class_names), place))
    return rows


def read_hmdb_split(folder: str, class_names: Sequence[str], split: int, mark: int) -> List[Row]:
    """The rows marked `mark` (TRAIN or TEST) in HMDB-51's split files, `<class>_test_split<k>.txt`, of all classes."""
    rows = []
    for label, name in enumerate(class_names):
        for place, text in _lines(os.path.join(folder, '%s_test_split%d.txt' % (name, split))):
            columns = text.rsplit(None, 1)
            if len(columns) != 2 or columns[1] not in ('0', '1', '2'):
                _refuse(place, 'a line holds video.avi and 0, 1 or 2 (unused, training, test)')
            if int(columns[1]) == mark:
                rows.append(_checked(Row('%s/%s' % (name, columns[0]), label), len(class_names), place))
    return rows


def read_kinetics_csv(path: str, class_names: Sequence[str]) -> List[Row]:
    """The rows of Kinetics' own csv (label, youtube_id, time_start, time_end, …); the path is class/id_start_end.mp4,
    with the class as in `class_names`.
    """
    labels = class_keys(class_names)
    rows = []
    with open(path, encoding='utf-8-sig', newline='') as file:
        reader = csv.DictReader(file)
        needed = ('label', 'youtube_id', 'time_start', 'time_end')
        if not set(needed) <= set(reader.fieldnames or ()):
            _refuse((path, 1), 'the head line must name the columns %s' % ', '.join(needed))
        for line in reader:
            rows.append(_kinetics_row(line, labels, class_names, (path, reader.line_num)))
    return rows


def _kinetics_row(line: Mapping[str, str], labels: Mapping[str, int], class_names: Sequence[str], place: Place) -> Row:
    if any(line[name] is None for name in ('label', 'youtube_id', 'time_start', 'time_end')):
        _refuse(place, 'has fewer columns than the head line')
    label = labels.get(class_key(line['label']))
    if label is None:
        _refuse(place, '%r is none of the %d classes' % (line['label'], len(class_names)))
    start, end = (_integer(line[name].split('.')[0], name, place) for name in ('time_start', 'time_end'))
    row = Row('%s/%s_%06d_%06d.mp4' % (class_names[label], line['youtube_id'], start, end), label)
    return _checked(row, len(class_names), place)
