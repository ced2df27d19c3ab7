"""Writes a packed store: several processes pack videos, one puts them together in their order; the index comes last.

So the bytes do not depend on the number of processes, and a video that crashes its decoder costs itself alone. Finished
shards stand in a journal: after a stop of any kind the same command goes on behind them.
"""
import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import zlib
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

from data import packed_index
from data.packed_index import FRAME, JOURNAL, SHARD, VIDEO, Description, PackedIndex, index_file, shard_file
from data.video_list import VideoFacts
from dataset.pack_video import BLOCK, Packed, Task, pack_video, write_member
from dataset.workers import Lost, run_all

WORK = '.packing-'
MOST_SECONDS = 3600.0  # for one video; then it is given up
WHAT = {'lists': 'its lists (or their videos) are others', 'videos': 'videos have changed (size or time of change)',
        'options': 'the options are others', 'decoder': 'OpenCV is another version'}


class StoreExists(ValueError):
    """The folder holds another store, finished or begun."""


class Source(NamedTuple):
    """What is to be packed, in the order in which it will lie in the store."""

    description: Description
    names: List[bytes]  # paths below description.root
    known: List[Tuple[int, Optional[VideoFacts]]]  # frames as the lists say, 0 for unknown; what an index says
    sizes: np.ndarray  # (videos,) bytes
    times: np.ndarray  # (videos,) ns
    splits: Dict[int, Tuple[np.ndarray, np.ndarray]]  # as in PackedIndex


class _Done(NamedTuple):
    """A finished shard as the journal has it: its row of SHARD, and (frames, first, problem) of each video."""

    shard: List[int]
    videos: List[Tuple[int, int, str]]


def pack(source: Source, folder: str, shard_bytes: int, workers: int) -> Iterator[Tuple[int, int]]:
    """Packs, or goes on packing; yields (videos done, bytes written) now and then. The index is there in the end.

    A shard is closed before it outgrows `shard_bytes`. Raises StoreExists; OSError where the disk is full; ValueError
    where no video can be read.
    """
    os.makedirs(folder, exist_ok=True)
    if os.listdir(folder) and not os.path.isfile(os.path.join(folder, JOURNAL)):
        raise StoreExists('%s holds something already, and no packed store that was begun: give another --output'
                          % folder)
    with _journal(folder, source) as (journal, done):
        _tidy(folder)
        work = tempfile.mkdtemp(prefix=WORK, dir=folder)  # of this command alone: helpers of a killed one may still run
        first = sum(len(shard.videos) for shard in done)
        written = sum(shard.shard[0] for shard in done)
        yield first, written
        shard = _Shard(folder, len(done))
        for video, packed in _in_order(run_all(pack_video, _tasks(source, work, first), workers, MOST_SECONDS,
                                               own=(journal,)), first):
            if packed.error[0]:
                raise OSError(*packed.error)
            if shard.videos and shard.size + packed.size > shard_bytes:
                _finish(shard, journal, done)
                written += done[-1].shard[0]
                shard = _Shard(folder, len(done))
            shard.add(os.path.join(work, '%d' % video), packed)
            yield video + 1, written + shard.size
        if shard.videos:
            _finish(shard, journal, done)
        index = _index(source, done)
        if not index.shards['num_frames'].sum():
            raise ValueError('no video could be read: %s' % '; '.join(sorted(set(index.problems.values()))[:5]))
        packed_index.write_index(folder, index)
        _tidy(folder, JOURNAL)


def finished(source: Source, folder: str) -> Optional[PackedIndex]:
    """The index of the folder's store where it is whole and of this very source; None where there is none.

    Raises StoreExists; DamagedStore where it is not whole.
    """
    if not os.path.isfile(index_file(folder)):
        return None
    index = packed_index.read_index(folder)
    packed_index.check_shards(folder, index)
    _compare(folder, index.description.fingerprint, source.description.fingerprint, ('options', 'lists', 'videos'))
    _tidy(folder, JOURNAL)
    return index


def _tidy(folder: str, *names: str) -> None:
    """Removes the folders that commands worked in, and the named files."""
    for name in os.listdir(folder):
        if name.startswith(WORK):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
        elif name in names:
            os.unlink(os.path.join(folder, name))


def _compare(folder: str, old: Dict[str, str], new: Dict[str, str], names: Tuple[str, ...]) -> None:
    differing = [name for name in names if old.get(name) != new.get(name)]
    if differing:
        raise StoreExists(
            '%s holds a packed store, whole or begun, which does not fit: since then %s%s. Give another --output, or '
            'remove that folder' % (folder, ' and '.join(WHAT[name] for name in differing),
                                    '' if differing != ['options'] else ' (%s, now %s)' % (
                                        old.get('options'), new.get('options'))))


def _tasks(source: Source, work: str, first: int) -> Iterator[Task]:
    described = source.description
    names = [os.fsdecode(name) for name in source.names]
    members = [os.path.splitext(name)[0] for name in names] if described.kind == 'video' else names
    if len(set(members)) < len(members):
        members = names  # two that differ in their endings alone
    for video in range(first, len(names)):
        yield Task(video, os.path.join(described.root, names[video]), described.kind, *source.known[video],
                   member=members[video], segment=os.path.join(work, '%d' % video), short_side=described.short_side,
                   quality=described.quality)


def _in_order(results: Iterator[Tuple[Task, Any]], first: int) -> Iterator[Tuple[int, Packed]]:
    """The results by number of the video; those that come early wait, their frames on disk."""
    early: Dict[int, Packed] = {}
    for task, result in results:
        if isinstance(result, Lost):
            result = Packed(b'', 0, 'the decoder failed: %s' % result.reason)
        early[task.video] = result
        while first in early:
            yield first, early.pop(first)
            first += 1


class _Shard:
    """The shard that is being put together, under a name of its own until it is whole."""

    def __init__(self, folder: str, number: int) -> None:
        self.path = shard_file(folder, number)
        self.size, self.num_frames = 0, 0
        self.videos: List[Tuple[int, int, str]] = []
        self._tables: List[np.ndarray] = []
        self._file = open(self.path + '.part', 'wb')

    def add(self, segment: str, packed: Packed) -> None:
        table = np.frombuffer(packed.table, FRAME).copy()
        table['offset'] += self.size
        self._tables.append(table)
        self.videos.append((len(table), self.num_frames, packed.problem))
        if packed.size:
            with open(segment, 'rb') as file:
                shutil.copyfileobj(file, self._file, 1 << 20)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(segment)
        self.size, self.num_frames = self.size + packed.size, self.num_frames + len(table)

    def close(self) -> List[int]:
        """Adds the table and the end of a tar file; the shard's row of SHARD."""
        with self._file as file:
            table = write_member(file, 'frames.bin', np.concatenate(self._tables).tobytes())
            file.write(bytes(2 * BLOCK))
            size = file.tell()
            file.flush()
            os.fsync(file.fileno())
        os.rename(self.path + '.part', self.path)
        return [size, table, self.num_frames]


def _finish(shard: _Shard, journal: IO[bytes], done: List[_Done]) -> None:
    done.append(_Done(shard.close(), shard.videos))
    journal.write(_line(done[-1]._asdict()))
    os.fsync(journal.fileno())


def _line(content: Dict[str, Any]) -> bytes:
    text = json.dumps(content).encode('ascii')
    return b'%d %s\n' % (zlib.crc32(text), text)


@contextlib.contextmanager
def _journal(folder: str, source: Source) -> Iterator[Tuple[IO[bytes], List[_Done]]]:
    """The journal, for one process at a time, and the finished shards that it knows, up to the first that is not."""
    fingerprint = source.description.fingerprint
    with open(os.path.join(folder, JOURNAL), 'ab+', buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreExists('%s: another command is packing into it; wait until that is done' % folder)
        file.seek(0)
        entries, end = _entries(file.read())
        if entries:
            _compare(folder, entries[0], fingerprint, tuple(WHAT))
        else:
            end = 0
        done = []
        for number, entry in enumerate(entries[1:]):
            shard = _Done(**entry)
            if not os.path.isfile(shard_file(folder, number)) or (
                    os.path.getsize(shard_file(folder, number)) != shard.shard[0]):
                end = len(b''.join(map(_line, entries[:1 + number])))
                break
            done.append(shard)
        file.truncate(end)
        if not end:
            file.write(_line(fingerprint))
        yield file, done


def _entries(data: bytes) -> Tuple[List[Dict[str, Any]], int]:
    """The journal's entries up to the first that is cut or damaged, and where they end."""
    entries, end = [], 0
    for line in data.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b'\n').partition(b' ')
        if not line.endswith(b'\n') or checksum != b'%d' % zlib.crc32(text):
            break
        entries.append(json.loads(text.decode('ascii')))
        end += len(line)
    return entries, end


def _index(source: Source, done: List[_Done]) -> PackedIndex:
    videos = np.zeros(len(source.names), VIDEO)
    videos['size'], videos['mtime_ns'] = source.sizes, source.times
    packed = [(number, frames, first, problem) for number, shard in enumerate(done)
              for frames, first, problem in shard.videos]
    for column, values in zip(('shard', 'num_frames', 'first'), zip(*packed)):
        videos[column] = values
    problems = {video: row[3] for video, row in enumerate(packed) if row[3]}
    return PackedIndex(source.description, np.array([tuple(shard.shard) for shard in done], SHARD), videos,
                       source.names, problems, source.splits)

