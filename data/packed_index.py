"""The index of a packed store: one zip file without compression, beside the shards; written last, in one step.

A shard is a plain tar file of JPEG frames, readable with `tar tf`; its last member is the table of its frames. Whatever
an index says is checked before it is believed: a store may be cut, damaged, or come from elsewhere.
"""
import io
import json
import os
import struct
import zipfile
from typing import Dict, List, NamedTuple, NoReturn, Tuple

import numpy as np

INDEX_NAME, FORMAT = "packed.zip", "packed clips 1"
JOURNAL = "packing.jsonl"  # of a store that is not finished
SHARD_NAME = "shard-%05d.tar"
FRAME = np.dtype([("offset", "<i8"), ("size", "<i4"), ("checksum", "<u4")])  # bytes into the shard, bytes, CRC-32
# A video's shard, its frames, the first one's place in the shard's table; bytes and time of change of the source.
VIDEO = np.dtype([("shard", "<i4"), ("num_frames", "<i4"), ("first", "<i8"), ("size", "<i8"), ("mtime_ns", "<i8")])
ROW = np.dtype([("video", "<i4"), ("label", "<i4")])
SHARD = np.dtype([("bytes", "<i8"), ("table", "<i8"), ("num_frames", "<i8")])  # `table`: where the table begins
MOST_MEMBERS, MOST_BYTES = 256, 1 << 58  # no sum of sizes below it overflows
UNREADABLE = (zipfile.BadZipFile, struct.error, ValueError, KeyError, TypeError, IndexError, OverflowError, EOFError,
              NotImplementedError, RuntimeError, MemoryError)


class DamagedStore(ValueError):
    """A packed store that is not whole, or not what it says. The message names the file and the remedy."""


class Description(NamedTuple):
    """What a store holds, and what it was made from."""

    dataset: str
    class_names: List[str]
    short_side: int  # most pixels of a frame's short side
    quality: int
    root: str  # of the data set that was packed
    kind: str  # 'video' or 'rawframes': what was packed
    fingerprint: Dict[str, str]  # of the options, the lists, and the files' sizes and times


class PackedIndex(NamedTuple):
    """Everything but the frames. Videos stand in the order in which they lie in the shards."""

    description: Description
    shards: np.ndarray  # (shards,) SHARD
    videos: np.ndarray  # (videos,) VIDEO
    names: List[bytes]  # path of each below the packed data set's root, as the file system has it
    problems: Dict[int, str]  # video -> why it has no frames, or not all
    splits: Dict[int, Tuple[np.ndarray, np.ndarray]]  # number -> training and test rows, each (rows,) ROW


def index_file(folder: str) -> str:
    return os.path.join(folder, INDEX_NAME)


def shard_file(folder: str, number: int) -> str:
    return os.path.join(folder, SHARD_NAME % number)


def write_index(folder: str, index: PackedIndex) -> None:
    """Writes it so that `read_index` gives it back; the same index, the same bytes. OSError where the disk is full."""
    parts = {"description.json": json.dumps(dict(index.description._asdict(), format=FORMAT), indent=1).encode("ascii"),
             "problems.json": json.dumps(sorted(index.problems.items()), indent=0).encode("ascii"),
             "shards.bin": index.shards.tobytes(), "videos.bin": index.videos.tobytes(),
             "names.bin": b"\0".join(index.names)}
    for number, rows in index.splits.items():
        parts.update(("split-%d-%s.bin" % (number, part), of_part.tobytes())
                     for part, of_part in zip(("train", "test"), rows))
    path = index_file(folder)
    with open(path + ".part", "wb") as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in parts.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".part", path)


def read_index(folder: str) -> PackedIndex:
    """The index of a store, checked. Raises DamagedStore; OSError where it cannot be read."""
    path = index_file(folder)
    with open(path, "rb") as file:
        data = file.read()
    try:
        index = _assembled(_members(data))
        _check(index)
    except UNREADABLE as error:
        raise DamagedStore("%s is damaged, or not the index of a packed store (%s): copy the store again, or make "
                           "it again, in an empty folder, with python -m dataset.pack" % (path, error))
    return index


def check_shards(folder: str, index: PackedIndex) -> None:
    """Raises DamagedStore for the first shard that is not there in full; nothing is read."""
    for number, expected in enumerate(index.shards["bytes"].tolist()):
        path = shard_file(folder, number)
        found = os.path.getsize(path) if os.path.isfile(path) else -1
        if found != expected:
            raise DamagedStore("%s %s: copy it again, or make the store again, in an empty folder"
                               % (path, "is not there" if found < 0 else "has %d bytes, not %d" % (found, expected)))


def _members(data: bytes) -> Dict[str, bytes]:
    """Name -> content; the archive's own checksums are compared. Stored ones alone, so that nothing can swell."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > MOST_MEMBERS or sum(entry.file_size for entry in entries) > len(data) or any(
                entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            _refuse("its parts claim to be larger than the file")
        return {entry.filename: archive.read(entry) for entry in entries}


def _assembled(parts: Dict[str, bytes]) -> PackedIndex:
    fields = json.loads(parts["description.json"].decode("ascii"))
    if fields.pop("format") != FORMAT:
        _refuse("another format")
    splits = {}
    for number in range(1, MOST_MEMBERS):
        names = ["split-%d-%s.bin" % (number, part) for part in ("train", "test")]
        if names[0] in parts:
            splits[number] = (np.frombuffer(parts[names[0]], ROW), np.frombuffer(parts[names[1]], ROW))
    return PackedIndex(
        Description(**fields), np.frombuffer(parts["shards.bin"], SHARD), np.frombuffer(parts["videos.bin"], VIDEO),
        parts["names.bin"].split(b"\0"), dict(json.loads(parts["problems.json"].decode("ascii"))), splits)


def _check(index: PackedIndex) -> None:
    _check_description(index.description)
    shards, videos = index.shards, index.videos
    if not len(videos) or len(index.names) != len(videos):
        _refuse("%d names of %d videos" % (len(index.names), len(videos)))
    table_ends = shards["table"] + FRAME.itemsize * shards["num_frames"]
    if not all(_within(shards[name], 0, MOST_BYTES) for name in ("bytes", "table", "num_frames")) or (
            table_ends > shards["bytes"]).any():
        _refuse("a shard's table lies outside of it")
    if not _within(videos["shard"], 0, len(shards) - 1) or (np.diff(videos["shard"]) < 0).any():
        _refuse("a video lies in no shard, or out of order")
    last = shards["num_frames"][videos["shard"]]
    if not _within(videos["num_frames"], 0, MOST_BYTES) or (videos["first"] < 0).any() or (
            videos["first"] > last - videos["num_frames"]).any():
        _refuse("a video's frames are not in its shard")
    for rows in (rows for split in index.splits.values() for rows in split):
        if not _within(rows["video"], 0, len(videos) - 1) or not _within(
                rows["label"], 0, len(index.description.class_names) - 1):
            _refuse("a row names no video or no class")
    if not index.splits or any(type(video) is not int or type(reason) is not str
                               for video, reason in index.problems.items()):
        _refuse("no split, or a problem that is no text")


def _check_description(described: Description) -> None:
    if type(described.class_names) is not list or type(described.fingerprint) is not dict:
        _refuse("a list that is none")
    words = [described.dataset, described.root, described.kind] + described.class_names
    words += list(described.fingerprint) + list(described.fingerprint.values())
    if not described.class_names or any(type(word) is not str or "\0" in word for word in words):
        _refuse("a name that is no text")
    if any(type(number) is not int or not 0 < number < 1 << 31 for number in (described.short_side, described.quality)):
        _refuse("a size that is no number")


def _within(values: np.ndarray, least: int, most: int) -> bool:
    return bool(((values >= least) & (values <= most)).all())


def _refuse(reason: str) -> NoReturn:
    raise DamagedStore(reason)
