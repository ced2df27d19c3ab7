"""The index of a packed store: written and read back; whatever is wrong with it is refused with a word."""
import random
import zipfile

import numpy as np
import pytest
from packed_films import make_store

from data import packed_index
from data.packed_index import SHARD, VIDEO, DamagedStore, check_shards, index_file, read_index, shard_file, write_index


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "store"), make_store(tmp_path / "store")


def same(one, other):
    return (one.description == other.description and one.names == other.names and one.problems == other.problems
            and np.array_equal(one.shards, other.shards) and np.array_equal(one.videos, other.videos)
            and one.splits.keys() == other.splits.keys()
            and all(np.array_equal(a, b) for key in one.splits for a, b in zip(one.splits[key], other.splits[key])))


def test_what_is_written_is_read_back(store):
    folder, index = store
    assert same(read_index(folder), index)
    data = open(index_file(folder), "rb").read()
    write_index(folder, index)
    assert open(index_file(folder), "rb").read() == data
    with zipfile.ZipFile(index_file(folder)) as archive:
        assert archive.testzip() is None and "videos.bin" in archive.namelist()
    check_shards(folder, index)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_index_is_refused_and_nothing_else(store, seed):
    folder, index = store
    whole = open(index_file(folder), "rb").read()
    draw, refused = random.Random(seed), 0
    for number in range(150):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[:draw.randrange(len(data))]
        elif number % 3 == 1:
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            start = draw.randrange(len(data))
            data[start:start + draw.randint(1, 64)] = bytes(draw.randrange(256) for _ in range(draw.randint(0, 64)))
        open(index_file(folder), "wb").write(data)
        try:
            assert same(read_index(folder), index)  # a time or an attribute of a member may change without harm
        except DamagedStore as error:
            refused += 1
            assert index_file(folder) in str(error) and "dataset.pack" in str(error)
    assert refused > 100


def changed(values, place, **fields):
    values = values.copy()
    for name, value in fields.items():
        values[name][place] = value
    return values


LIES = {
    "shard of a video": lambda i: i._replace(videos=changed(i.videos, 5, shard=2)),
    "negative shard": lambda i: i._replace(videos=changed(i.videos, 0, shard=-1)),
    "shards out of order": lambda i: i._replace(videos=i.videos[::-1].copy()),
    "first frame": lambda i: i._replace(videos=changed(i.videos, 0, first=-1)),
    "too many frames": lambda i: i._replace(videos=changed(i.videos, 5, num_frames=2 ** 31 - 1)),
    "frames that wrap": lambda i: i._replace(videos=changed(i.videos, 5, first=2 ** 63 - 1)),
    "negative frames": lambda i: i._replace(videos=changed(i.videos, 0, num_frames=-1)),
    "table outside": lambda i: i._replace(shards=changed(i.shards, 0, table=10 ** 9)),
    "table that wraps": lambda i: i._replace(shards=changed(i.shards, 0, table=2 ** 63 - 8)),
    "frames of a shard that wrap": lambda i: i._replace(shards=changed(i.shards, 0, num_frames=2 ** 60)),
    "endless shard": lambda i: i._replace(shards=changed(i.shards, 0, bytes=2 ** 63 - 1, table=2 ** 63 - 99)),
    "no shards": lambda i: i._replace(shards=np.zeros(0, SHARD)),
    "no videos": lambda i: i._replace(videos=np.zeros(0, VIDEO), names=[]),
    "too few names": lambda i: i._replace(names=i.names[1:]),
    "a row of no video": lambda i: i._replace(splits={1: (changed(i.splits[1][0], 0, video=6), i.splits[1][1])}),
    "a row of no class": lambda i: i._replace(splits={1: (i.splits[1][0], changed(i.splits[1][1], 0, label=2))}),
    "negative label": lambda i: i._replace(splits={1: (i.splits[1][0], changed(i.splits[1][1], 0, label=-1))}),
    "no split": lambda i: i._replace(splits={}),
    "a problem of what": lambda i: i._replace(problems={1: 2}),
    "classes of no text": lambda i: i._replace(description=i.description._replace(class_names=[1, 2])),
    "no classes": lambda i: i._replace(description=i.description._replace(class_names=[])),
    "classes in one text": lambda i: i._replace(description=i.description._replace(class_names="ab")),
    "a size of no number": lambda i: i._replace(description=i.description._replace(short_side="9")),
    "a root of no text": lambda i: i._replace(description=i.description._replace(root=None)),
    "a fingerprint of no words": lambda i: i._replace(description=i.description._replace(fingerprint=[1])),
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_a_sound_file_of_absurd_content_is_refused(store, lie):
    folder, index = store
    write_index(folder, LIES[lie](index))
    with pytest.raises(DamagedStore, match="damaged, or not the index"):
        read_index(folder)


def test_what_would_swell_is_refused(store):
    folder, _ = store
    with zipfile.ZipFile(index_file(folder), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("description.json", b" " * 10 ** 7)
    with pytest.raises(DamagedStore, match="claim to be larger"):
        read_index(folder)


def test_a_deep_description_is_refused(store):
    folder, _ = store
    with zipfile.ZipFile(index_file(folder), "w") as archive:
        archive.writestr("description.json", b"[" * 10 ** 5)
    with pytest.raises(DamagedStore):
        read_index(folder)


def test_shards_that_are_not_whole(store):
    folder, index = store
    with open(shard_file(folder, 1), "r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamagedStore, match="shard-00001.tar has 1000 bytes, not"):
        check_shards(folder, index)
    packed_index.os.unlink(shard_file(folder, 0))
    with pytest.raises(DamagedStore, match="shard-00000.tar is not there"):
        check_shards(folder, index)
