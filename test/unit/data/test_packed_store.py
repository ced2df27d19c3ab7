"""Clips from a packed store: exactly the frames that were packed, or a refusal that names shard, video and reason."""
import os
import pickle
import struct
import zlib

import cv2
import numpy as np
import pytest
from film_numbers import said_index
from packed_films import BROKEN, NAMES, jpegs_of, make_store

from data import packed_index, packed_store
from data.clip_dataset import ClipDataset
from data.loaders import TrainSampler, train_loader
from data.packed_index import FRAME, read_index, shard_file
from data.packed_store import PackedStore, PackedVideos
from data.reader import UnreadableClip
from data.sample_order import SampleOrder
from data.transforms import TrainAugmentation


@pytest.fixture
def folder(tmp_path):
    make_store(tmp_path / "store")
    return str(tmp_path / "store")


def training(folder):
    return PackedVideos(folder, read_index(folder), 1, 0)


def test_rows_are_those_of_the_list(folder):
    videos = training(folder)
    assert [videos.relative(row) for row in range(5)] == [NAMES[video] for video in (5, 0, 3, 1, 0)]
    assert videos.labels.tolist() == [1, 0, 1, 0, 1] and videos.kind == "packed"
    assert videos.path(0) == os.path.join(folder, NAMES[5]) and videos.num_unreadable == 1
    assert len(PackedVideos(folder, read_index(folder), 1, 1)) == 2


@pytest.mark.parametrize("indices", [[0, 1, 2, 3], [23, 0, 11, 11, 5], [7]])
def test_frames_are_those_that_were_packed(folder, indices):
    videos = training(folder)
    for row in (0, 1, 3, 4):
        reader = videos.open(row)
        assert reader.num_frames == 24
        jpegs = jpegs_of(videos.relative(row))
        expected = [cv2.imdecode(np.frombuffer(jpegs[index], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
                    for index in indices]
        clip = reader.read(indices)
        assert np.array_equal(clip, np.stack(expected)) and clip.dtype == np.uint8
        assert [said_index(frame) for frame in clip] == indices


def test_a_video_that_was_broken_says_why(folder):
    with pytest.raises(UnreadableClip, match="when it was packed: it is broken") as caught:
        training(folder).open(2)
    assert caught.value.path == os.path.join(folder, NAMES[BROKEN]) and caught.value.readable == 0


def test_frames_out_of_range(folder):
    for index in (24, -1):
        with pytest.raises(UnreadableClip, match="frame %d asked for, the video has 24" % index):
            training(folder).open(0).read([index])


def test_where_the_rows_lie(folder):
    stretches = training(folder).stretches()
    assert stretches.rows.tolist() == [1, 4, 3, 2, 0] and stretches.ends.tolist() == [3, 5]


def flip(path, place):
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 64]))


def table_of(folder, number):
    shard = read_index(folder).shards[number]
    with open(shard_file(folder, number), "rb") as file:
        file.seek(int(shard["table"]))
        return np.frombuffer(file.read(int(shard["num_frames"]) * FRAME.itemsize), FRAME).copy()


def put_table(folder, number, table):
    with open(shard_file(folder, number), "r+b") as file:
        file.seek(int(read_index(folder).shards[number]["table"]))
        file.write(table.tobytes())


def test_a_flipped_bit_is_noticed(folder):
    row = table_of(folder, 0)[5]
    flip(shard_file(folder, 0), int(row["offset"]) + int(row["size"]) // 2)
    reader = training(folder).open(1)  # video 0, the first of the shard
    assert reader.read([4, 6]).shape == (2, 96, 128, 3)
    with pytest.raises(UnreadableClip, match="shard-00000.tar: frame 5 is damaged") as caught:
        reader.read([3, 5])
    assert caught.value.readable == 5


@pytest.mark.parametrize("field, value", [("offset", -1), ("offset", 2 ** 62), ("offset", 2 ** 63 - 1), ("size", 0),
                                          ("size", -5), ("size", 2 ** 31 - 1)])
def test_a_table_that_points_elsewhere_is_refused(folder, field, value):
    table = table_of(folder, 0)
    table[field][2] = value
    put_table(folder, 0, table)
    with pytest.raises(UnreadableClip, match="shard-00000.tar: a frame lies outside of it"):
        training(folder).open(1).read([2])


def test_a_frame_in_the_place_of_another_is_refused(folder):
    table = table_of(folder, 0)
    table["offset"][2], table["size"][2] = table["offset"][9], table["size"][9]
    put_table(folder, 0, table)
    with pytest.raises(UnreadableClip, match="frame 2 is damaged"):
        training(folder).open(1).read([2])


def test_a_table_of_noise_never_gives_a_frame(folder):
    random = np.random.RandomState(3)
    videos = training(folder)
    for _ in range(50):
        put_table(folder, 0, np.frombuffer(random.bytes(48 * FRAME.itemsize), FRAME))
        with pytest.raises(UnreadableClip):
            videos.open(1).read([0, 9, 18])


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_shard_gives_the_right_frames_or_none(folder, seed):
    videos, random = training(folder), np.random.RandomState(seed)
    expected = {row: videos.open(row).read(range(24)) for row in (1, 3)}
    with open(shard_file(folder, 0), "rb") as file:
        whole = file.read()
    refused = 0
    for number in range(60):
        data = bytearray(whole)
        start = random.randint(len(data))
        length = min(len(data) - start, (1, 64, 4096)[number % 3])
        data[start:start + length] = random.bytes(length)
        with open(shard_file(folder, 0), "wb") as file:
            file.write(data)
        for row, clip in expected.items():
            indices = sorted(random.choice(24, 8))
            try:
                assert np.array_equal(videos.open(row).read(indices), clip[indices])
            except UnreadableClip as error:
                refused += 1
                assert "shard-00000.tar" in str(error) and error.readable <= indices[-1]
    assert refused > 3


def test_a_huge_frame_is_refused_before_it_is_decoded(folder):
    table = table_of(folder, 0)
    with open(shard_file(folder, 0), "r+b") as file:
        file.seek(int(table["offset"][0]))
        jpeg = bytearray(file.read(int(table["size"][0])))
        place = jpeg.index(b"\xff\xc0") + 5
        jpeg[place:place + 4] = struct.pack(">HH", 9000, 65000)
        file.seek(int(table["offset"][0]))
        file.write(jpeg)
    table["checksum"][0] = zlib.crc32(bytes(jpeg))
    put_table(folder, 0, table)
    with pytest.raises(UnreadableClip, match="65000 x 9000 pixels"):
        training(folder).open(1).read([0])


def test_a_shard_that_is_cut_while_it_is_open(folder):
    reader = training(folder).open(1)
    reader.read([0])
    with open(shard_file(folder, 0), "r+b") as file:
        file.truncate(5000)
    with pytest.raises(UnreadableClip, match="shard-00000.tar: it has 5000 bytes, not"):
        reader.read([0])
    os.unlink(shard_file(folder, 0))
    with pytest.raises(UnreadableClip, match="shard-00000.tar: .*No such file"):
        training(folder).open(1).read([0])


def test_files_and_memory_do_not_grow(folder, monkeypatch):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files through /proc")
    monkeypatch.setattr(packed_store, "MOST_OPEN", 1)
    videos = training(folder)
    videos.open(0).read([0])
    before, maps = len(os.listdir("/proc/self/fd")), open("/proc/self/maps").read().count("shard-")
    for _ in range(20):
        for row in (0, 1):
            videos.open(row).read([0, 23])
    assert len(os.listdir("/proc/self/fd")) == before and maps == 0
    assert open("/proc/self/maps").read().count("shard-") == 0


def test_a_copy_for_another_process_carries_no_open_file(folder):
    videos = training(folder)
    clip = videos.open(0).read([3])
    other = pickle.loads(pickle.dumps(videos))
    assert not other._store._opened and np.array_equal(other.open(0).read([3]), clip)


@pytest.mark.parametrize("window", [0, 2])
def test_a_rank_reads_the_frames_of_its_own_clips_alone(folder, window, monkeypatch):
    index = read_index(folder)
    rows = np.array([(video, 0) for video in (0, 1, 2, 4, 5)] * 2, packed_index.ROW)[:8]
    index = index._replace(splits={1: (rows, rows)})
    read, frames_of = [], PackedStore.frames_of

    def watched(self, shard, first, wanted):
        read.append((shard, first))
        return frames_of(self, shard, first, wanted)
    monkeypatch.setattr(PackedStore, "frames_of", watched)
    of_ranks = []
    for rank in range(2):
        videos = PackedVideos(folder, index, 1, 0)
        dataset = ClipDataset(videos, 4, 3, TrainAugmentation(32, (32, 40)), 1, training=True)
        order = SampleOrder(1, 8, videos.stretches(), window)
        batches = list(train_loader(dataset, TrainSampler(8, 2, rank, 2, 1, order=order), 0, False))
        asked = [index.videos[rows["video"][row]] for batch in batches for row in batch.index.tolist()]
        assert read == [(video["shard"], video["first"]) for video in asked]
        of_ranks.append([row for batch in batches for row in batch.index.tolist()])
        del read[:]
    assert sorted(of_ranks[0] + of_ranks[1]) == list(range(8))


def test_a_dataset_reads_it_and_counts_what_is_broken(folder):
    dataset = ClipDataset(training(folder), 4, 3, TrainAugmentation(32, (32, 40)), 1, training=True)
    for row in (0, 1, 3, 4):
        sample = dataset[2, row]
        assert sample.clip.shape == (4, 32, 32, 3) and sample.index == row and not sample.failures
    replaced = dataset[2, 2]
    assert replaced.index != 2 and replaced.label == training(folder).label(replaced.index)
    assert [path for path, _ in replaced.failures] == [os.path.join(folder, NAMES[BROKEN])]
