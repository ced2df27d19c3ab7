"""200,000 rows: what stays in memory is a few arrays. For the figures of a million: test/scale.py."""
import gc
import pickle

import cv2
import pytest

from data.clip_dataset import ClipDataset
from data.loaders import eval_loader
from data.transforms import EvalTransform
from data.video_list import VideoFacts
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
