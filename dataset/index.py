"""The index of a data set: a file beside its lists, a line of JSON for each video, each with a checksum, last one wins.

A line that is cut, damaged or absurd counts as none: a writer may be killed, and the file may come from elsewhere.
dataset/indexing.py writes it.
"""
import json
import math
import operator
import os
import re
import zlib
from json.encoder import encode_basestring_ascii as quoted
from typing import Dict, Iterator, NamedTuple, Optional, Tuple

import cv2

from data.video_list import KINDS, VideoFacts, VideoList

INDEX_NAME = 'index.jsonl'
LONGEST_LINE = 1 << 16  # bytes
PATH, KIND, CHECK = b'{"path": "', b'", "kind": "', b', "check": '
FACTS = re.compile(rb'", "kind": "(\w+)", "num_frames": (\d{1,10}), "size": (\d{1,19}), "mtime_ns": (-?\d{1,19}), '
                   rb'"key_frames": \[([\d, ]*)\], "opencv": "([^"\\]*)", ')
B_FRAMES = ('none', 'some', 'packed', '')


class Record(NamedTuple):
    """What the index says of a video, or of a folder of frames: its `facts` have the bytes of all files and the time
    of change of the folder.
    """

    path: str  # below the data root
    kind: str  # as in VideoList
    facts: VideoFacts
    opencv: str  # the version that decoded: another one may count and seek differently
    strict: str  # the strict decoder that agreed, '' where none was installed
    width: int
    height: int
    fps: float  # as the header says, 0 where it says none
    b_frames: str  # 'none', 'some', 'packed', '' unknown
    problem: str  # '' where all is sound; else frames are correct up to facts.num_frames
    content: str  # the frames' hash, '' where there are none; equal for a copy in another container too


def index_path(root: str) -> str:
    """Where the index of the data set below `root` lies."""
    return os.path.join(root, INDEX_NAME)


def prefix_of(root: str, folder: str) -> str:
    """What makes a path below `folder` the path below the data set's root, by which the index knows it."""
    below = os.path.relpath(folder, root)
    return '' if below == os.curdir else below + '/'


def stamp_of(path: str, kind: str) -> Tuple[int, int]:
    """(size, mtime_ns) of a video; of a folder of frames the time alone is looked at, its size is 0. OSError."""
    status = os.stat(path)
    return (status.st_size if kind == 'video' else 0), status.st_mtime_ns


def line_of(record: Record) -> bytes:
    """The record's line, its end included."""
    fields = {'path': record.path, 'kind': record.kind}
    fields.update(record.facts._asdict())
    fields.update((name, value) for name, value in record._asdict().items() if name != 'facts')
    text = json.dumps(fields).encode('ascii')[:-1]
    return text + CHECK + b'%d}\n' % zlib.crc32(text)


def record_of(line: bytes) -> Optional[Record]:
    """The record of a line; None where it is cut, damaged, or says what no video can be."""
    facts = _facts_of(line, max(0, line.find(KIND)))
    if facts is None:
        return None
    try:
        fields = json.loads(line.decode('ascii'))
        record = Record(facts=facts[2], **{name: fields[name] for name in Record._fields if name != 'facts'})
    except (ValueError, KeyError, RecursionError):
        return None
    words = (record.path, record.kind, record.opencv, record.strict, record.problem, record.content)
    possible = (all(type(word) is str for word in words) and record.b_frames in B_FRAMES
                and type(record.width) is int and type(record.height) is int
                and type(record.fps) is float and math.isfinite(record.fps))
    return record if possible else None


def _facts_of(line: bytes, place: int) -> Optional[Tuple[str, str, VideoFacts]]:
    """(kind, version of OpenCV, facts) of a line whose path ends at `place`, without reading the rest of it."""
    found, end = FACTS.match(line, place), line.rfind(CHECK)
    try:
        if not found or int(line[end + len(CHECK):-2]) != zlib.crc32(line[:end]) or line[-2:] != b'}\n':
            return None
        keys = tuple(map(int, found.group(5).split(b','))) if found.group(5) else ()
    except ValueError:
        return None
    facts = VideoFacts(int(found.group(2)), int(found.group(3)), int(found.group(4)), keys)
    possible = (facts.num_frames < 1 << 31 and facts.size < 1 << 63 and abs(facts.mtime_ns) < 1 << 63
                and (not keys or 0 < keys[0] and keys[-1] < facts.num_frames and all(map(operator.lt, keys, keys[1:]))))
    kind = found.group(1).decode('ascii')
    return (kind, found.group(6).decode('ascii', 'replace'), facts) if possible and kind in KINDS else None


def read_index(path: str) -> Iterator[Optional[Record]]:
    """The records of an index, oldest first: a later one replaces. None for a bad line; nothing where no file is."""
    return (record_of(line) for line in _lines(path))


def _lines(path: str) -> Iterator[bytes]:
    if os.path.isfile(path):
        with open(path, 'rb') as file:
            for line in iter(lambda: file.readline(LONGEST_LINE), b''):
                if line != b'\n':
                    yield line


def attach_index(root: str, videos: VideoList, part: str) -> str:
    """Gives a list what the index knows of its videos. A note for the log, '' where there is no index.

    No video is touched: whether a fact is still true is seen by the reader, when it opens the file.
    """
    path, prefix = index_path(root), prefix_of(root, videos.root)
    if not os.path.isfile(path):
        return ''
    rows: Dict[bytes, int] = {}  # path as in a line -> row
    repeated = []  # (row, first row of the same path)
    for row in range(len(videos)):
        first = rows.setdefault(quoted(prefix + videos.relative(row))[1:-1].encode('ascii'), row)
        if first != row:
            repeated.append((row, first))
    unusable = 0
    for line in _lines(path):
        place = line.find(KIND)
        known = rows.get(line[len(PATH):place], -1)
        if known >= 0:
            facts = _facts_of(line, place)
            if facts is not None and facts[:2] == (videos.kind, cv2.__version__):
                videos.learn(known, facts[2])
            else:
                unusable += 1
    for row, first in repeated:
        known_facts = videos.facts(first)
        if known_facts is not None:
            videos.learn(row, known_facts)
    return _note(path, videos, part, unusable)


def _note(path: str, videos: VideoList, part: str, unusable: int) -> str:
    note = 'index: %s knows %d of %d %s videos' % (path, videos.num_known, len(videos), part)
    if videos.num_known == len(videos):  # lines that others have replaced do no harm
        return note
    if unusable:
        note += ', %d lines are damaged or from another OpenCV' % unusable
    return note + '; python -m dataset.check brings it up to date'
