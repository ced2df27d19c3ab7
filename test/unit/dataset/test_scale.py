"""200,000 rows: what stays in memory is a few arrays. For the figures of a million: test/scale.py."""
import gc
import pickle
import tracemalloc

import cv2
import numpy as np
import pytest

from data.clip_dataset import ClipDataset
from data.loaders import TrainSampler, eval_loader
from data.transforms import EvalTransform
from data.video_list import VideoFacts, VideoList
from dataset.index import Record, index_path, line_of
from dataset.lists import read_list
from dataset.specs import find_dataset, load_videos

ROWS, FILES = 200000, 500


@pytest.fixture(scope="module")
def long_list(tmp_path_factory):
    """A data set whose lists name the same files again and again, with an index."""
    root = tmp_path_factory.mktemp("long")
    record = Record("", "video", VideoFacts(250, 1 << 20, 1 << 60, (24, 48)), cv2.__version__, "", 1, 1, 25.0, "none",
                    "", "00" * 16)
    with open(index_path(str(root)), "wb") as index:
        for number in range(FILES):
            path = root / "videos" / ("class_%d" % (number % 5)) / ("video_%06d.avi" % number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
            index.write(line_of(record._replace(path=path.relative_to(root).as_posix())))
    (root / "classes.txt").write_text("".join("class_%d\n" % number for number in range(5)))
    lines = ["class_%d/video_%06d.avi %d\n" % (row % 5, row % FILES, row % 5) for row in range(ROWS)]
    (root / "train.txt").write_text("".join(lines))
    (root / "test.txt").write_text("".join(lines[:100]))
    return root


@pytest.fixture(scope="module")
def videos(long_list):
    return load_videos(find_dataset("folder"), str(long_list))


def test_what_stays_is_packed(long_list, videos):
    path = len("class_0/video_000000.avi") + 1
    train, last = videos.train, ROWS - 1
    assert len(train) == train.num_known == ROWS
    end, label, facts, keys = 4, 4, 32, 2 * 4
    assert len(pickle.dumps(train, protocol=4)) < ROWS * (path + end + label + facts + keys) * 1.05
    assert train.relative(last) == "class_4/video_%06d.avi" % (last % FILES) and train.label(last) == 4
    assert train.facts(last) == (250, 1 << 20, 1 << 60, (24, 48))
    gc.collect()
    tracked = len(gc.get_objects())
    again = load_videos(find_dataset("folder"), str(long_list))
    gc.collect()
    assert len(gc.get_objects()) - tracked < 200 and len(again.train) == ROWS


def test_a_long_evaluation_holds_no_batches(videos):
    dataset = ClipDataset(videos.train, 8, 8, EvalTransform(32, 36), 1, training=False)
    loader = eval_loader(dataset, 1, 3, 7, 0, False)
    assert len(pickle.dumps(loader.sampler)) < 500
    batches = [ids for _, ids in loader.sampler]
    assert len(loader) == len(batches) == 9524 and {len(batch) for batch in batches[:-1]} == {7}
    assert [sample for batch in batches for sample in batch] == [(0, sample) for sample in range(1, ROWS, 3)]


def test_a_wrong_line_far_down_is_named(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a/b.avi 0\n" * 50000 + "a/../../b.avi 0\n")
    with pytest.raises(ValueError, match="list.txt:50001: path 'a/../../b.avi' leaves the data root"):
        read_list(str(path), "videos", 1)


def peak_of(work):
    """(what work() gives, most bytes that it held at once, those that stay)"""
    tracemalloc.start()
    result = work()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, peak, held


def test_the_sampler_of_ten_million_rows_and_its_position_are_small():
    rows = 10 ** 7

    def resumed():
        sampler = TrainSampler(rows, 16, 3, 8, 1)
        sampler.set_position(2, rows // 2 // 128 * 128)
        return sampler, next(iter(sampler))

    (sampler, ids), peak, held = peak_of(resumed)
    assert peak < 45e6 and held < 1e5 and len(pickle.dumps(sampler)) < 1000  # 40 MB of them are the epoch's order
    assert len(ids) == 16 and len(sampler) == (rows - sampler.position.start_sample) // 128


def test_a_long_list_weighs_nothing_once_it_rests(monkeypatch):
    paths = ["class_%03d/video_%08d.avi" % (row % 400, row) for row in range(ROWS)]
    monkeypatch.setattr("data.video_list.RESTING_BYTES", ROWS * 60)  # of these 70 bytes a row

    def listed():
        videos = VideoList("/data", paths, np.zeros(ROWS))
        videos.learn(ROWS - 1, VideoFacts(250, 1, 1, (24,)))
        videos.rest()
        return videos

    videos, _, held = peak_of(listed)
    assert held < 1e5  # for ten million the same; with the order, and 40 MB of frame counts, a rank stays below 100 MB
    assert videos.relative(ROWS - 1) == paths[-1] and videos.facts(ROWS - 1).key_frames == (24,)
