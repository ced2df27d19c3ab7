"""The packed list: what goes in comes out, small however long, and nothing leads out of the root."""
import pickle

import numpy as np
import pytest

from data.video_list import VideoFacts, VideoList


def test_rows_come_back_in_order():
    paths = ["a/b.avi", "Straße/ü #1 (x).avi", "c", "a/b..c.avi", "d/\udce9.avi"]
    videos = VideoList("/some/root", paths, [3, 0, 7, 7, 2])
    assert len(videos) == 5 and videos.kind == "video"
    assert [videos.relative(i) for i in range(5)] == paths
    assert videos.path(1) == "/some/root/Straße/ü #1 (x).avi"
    assert [videos.label(i) for i in range(5)] == [3, 0, 7, 7, 2] == videos.labels.tolist()
    assert videos.num_frames(0) is None
    with pytest.raises(IndexError, match="row 5 of a list of 5"):
        videos.path(5)
    with pytest.raises(IndexError):
        videos.path(-1)


def test_root_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert VideoList("root", ["x"], [0]).path(0) == str(tmp_path / "root" / "x")


def test_frame_counts():
    videos = VideoList("/r", ["a", "b"], [0, 1], "rawframes", [17, 0])
    assert videos.num_frames(0) == 17 and videos.num_frames(1) is None and videos.kind == "rawframes"


def test_a_long_list_is_small_and_holds_no_object_a_row():
    paths = ["class_%03d/video_%06d.avi" % (i % 101, i) for i in range(100000)]
    videos = VideoList("/r", paths, np.arange(100000) % 101)
    packed = pickle.dumps(videos, protocol=4)
    assert len(packed) < 100000 * (len(paths[0]) + 8 + 4) + 1000
    again = pickle.loads(packed)
    assert again.relative(99999) == paths[99999] and again.label(12345) == 12345 % 101
    assert sum(isinstance(value, (list, tuple, dict)) for value in vars(videos).values()) == 0


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "..", "a/..", "a\0b"])
def test_paths_that_leave_the_root_are_refused(path):
    with pytest.raises(ValueError, match="stay below the data root"):
        VideoList("/r", ["fine", path], [0, 0])


def test_other_nonsense_is_refused():
    with pytest.raises(ValueError, match="one label"):
        VideoList("/r", ["a", "b"], [0])
    with pytest.raises(ValueError, match="one label"):
        VideoList("/r", ["a"], [0], frame_counts=[1, 2])
    with pytest.raises(ValueError, match="label -1 of 'b'"):
        VideoList("/r", ["a", "b"], [0, -1])
    with pytest.raises(ValueError, match="video, rawframes"):
        VideoList("/r", ["a"], [0], "flow")


def test_empty_list():
    videos = VideoList("/r", [], [])
    assert len(videos) == 0 and videos.labels.shape == (0,)


FACTS = [(2, VideoFacts(70, 5 << 40, 1700000000123456789, (0, 12, 24))), (0, VideoFacts(0, 17, 3, ())),
         (3, VideoFacts(300, 1, 4, (48,)))]


def test_facts_come_back_by_row():
    videos = VideoList("/r", ["a", "b", "c", "d"], [0, 0, 0, 0])
    assert videos.facts(2) is None
    for row, facts in [(2, VideoFacts(1, 1, 1, (0,)))] + FACTS:
        videos.learn(row, facts)
    assert videos.num_known == 3
    assert [videos.facts(row) for row in range(4)] == [FACTS[1][1], None, FACTS[0][1], FACTS[2][1]]
    again = pickle.loads(pickle.dumps(videos))
    assert again.facts(2) == FACTS[0][1] and type(again.facts(2).key_frames[1]) is int
    assert type(again.facts(2).num_frames) is int and VideoList("/r", ["a"], [0]).num_known == 0


def test_facts_beyond_what_a_file_can_have_are_refused():
    videos = VideoList("/r", ["a"], [0])
    for facts in (VideoFacts(1 << 31, 1, 1, ()), VideoFacts(1, 1 << 63, 1, ()), VideoFacts(1, 1, 1, (1 << 31,)),
                  VideoFacts(-1, 1, 1, ()), VideoFacts(1, -1, 1, ()), VideoFacts(1, 1, 1 << 63, ())):
        with pytest.raises(OverflowError):
            videos.learn(0, facts)
    assert videos.facts(0) is None


def test_facts_are_packed():
    videos = VideoList("/r", ["%06d" % row for row in range(100000)], np.zeros(100000, int))
    bare = len(pickle.dumps(videos, protocol=4))
    for row in range(100000):
        videos.learn(row, VideoFacts(250, 1 << 20, 1 << 60, (24, 100)))
    assert len(pickle.dumps(videos, protocol=4)) - bare < 100000 * (32 + 2 * 4) + 1000


def test_a_long_list_rests_in_a_file_and_says_the_same(monkeypatch):
    paths = ["c/v%d.avi" % row for row in range(50)]
    videos = VideoList("/d", paths, list(range(50)), frame_counts=[7] * 50)
    videos.learn(3, VideoFacts(9, 8, 7, (1, 2)))
    videos.learn(4, VideoFacts(1 << 30, 1 << 62, -5, ()))
    videos.rest()
    assert videos.labels.flags.writeable  # it is short
    monkeypatch.setattr("data.video_list.RESTING_BYTES", 1)
    videos.rest()
    for again in (videos, pickle.loads(pickle.dumps(videos))):
        assert [again.relative(row) for row in range(50)] == paths and again.labels.tolist() == list(range(50))
        assert again.facts(3) == (9, 8, 7, (1, 2)) and again.facts(4) == (1 << 30, 1 << 62, -5, ())
        assert again.facts(5) is None and again.num_frames(49) == 7 and again.num_known == 2
    assert not videos.labels.flags.writeable
    monkeypatch.setenv("TMPDIR", "/nowhere")
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    other = VideoList("/d", paths, list(range(50)))
    other.rest()  # no room: it stays
    assert other.relative(49) == "c/v49.avi"
