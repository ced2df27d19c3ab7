"""What scores say, against numbers counted by hand; files and late fusion."""
import csv
import pickle

import numpy as np
import pytest

from tools.scores import Scored, fuse, measure, ranked, read_scores, write_confusion, write_scores

NAMES = ["dance", "run", "sit", "wave"]


def scored(paths, labels, scores, readable=None):
    scores = np.array(scores, np.float32)
    return Scored(list(paths), np.array(labels), scores, ranked(scores),
                  np.ones(len(labels), bool) if readable is None else np.array(readable), NAMES)


@pytest.fixture
def five():
    """Three of dance (two right, one unreadable), two of run (one taken for sit)."""
    return scored("abcde", [0, 0, 0, 1, 1],
                  [[.9, .1, 0, 0], [.7, .1, .1, .1], [0, 0, 0, 0], [.1, .6, .2, .1], [.0, .3, .7, 0]],
                  [True, True, False, True, True])


def test_accuracies_by_hand(five):
    report = measure(five)
    assert (report["hits_top1"], report["hits_top5"], report["num_videos"], report["num_unreadable"]) == (3, 4, 5, 1)
    assert report["top1"] == pytest.approx(60) and report["top5"] == pytest.approx(80) and report["unit"] == "percent"
    assert report["mean_class_accuracy"] == pytest.approx((100 * 2 / 3 + 50) / 2)
    assert report["confusion_matrix"] == [[2, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    run = report["per_class"][1]
    assert run == {"class": "run", "num_videos": 2, "top1": 50.0, "top5": 100.0, "most_often_taken_for": "sit",
                   "taken_so": 1}
    assert report["per_class"][3]["top1"] is None and report["per_class"][0]["most_often_taken_for"] is None


def test_calibration_by_hand(five):
    found = measure(five)["calibration"]
    # bins of 1/15: 0.9 (right) in 13; 0.7 twice (one right) in 10; 0.6 (right) in 9
    assert found["expected_calibration_error"] == pytest.approx((0.1 + 2 * 0.2 + 0.4) / 4, abs=1e-6)
    filled = {number: row for number, row in enumerate(found["bins"]) if row["num_videos"]}
    assert sorted(filled) == [9, 10, 13] and filled[10]["accuracy"] == 0.5
    assert filled[10]["probability"] == pytest.approx(0.7)


def test_top_one_of_certain_scores_is_in_the_last_bin():
    assert measure(scored("a", [0], [[1, 0, 0, 0]]))["calibration"]["bins"][-1]["num_videos"] == 1


def test_nothing_readable_is_no_crash():
    report = measure(scored("a", [1], [[0, 0, 0, 0]], [False]))
    assert report["top1"] == 0 and report["calibration"]["expected_calibration_error"] == 0


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_the_confusion_matrix_as_a_file(ending, five, tmp_path):
    path = str(tmp_path / ("c." + ending))
    write_confusion(path, measure(five)["confusion_matrix"], NAMES)
    if ending == "npz":
        with np.load(path) as file:
            assert file["confusion_matrix"].tolist()[1] == [0, 1, 1, 0] and file["class_names"].tolist() == NAMES
    else:
        with open(path, newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0][1:] == NAMES and rows[2] == ["run", "0", "1", "1", "0"]


def test_scores_come_back_as_they_were_written(five, tmp_path):
    path = str(tmp_path / "scores.npz")
    write_scores(path, five)
    back = read_scores(path)
    assert back.paths == five.paths and back.class_names == NAMES
    for mine, theirs in zip(back[1:5], five[1:5]):
        assert np.array_equal(mine, theirs)
    with np.load(path, allow_pickle=False) as file:
        assert {"path", "label", "scores", "class_names"} <= set(file) and file["scores"].dtype == np.float32


GOOD = {"path": np.array(["a"]), "label": np.array([0]), "scores": np.ones((1, 4), np.float32),
        "class_names": np.array(NAMES)}


@pytest.mark.parametrize("change, words", [
    ({"path": np.array([{"a": 1}], object)}, "a.npz"), ({"scores": np.ones((2, 4))}, "do not fit"),
    ({"label": np.array([4])}, "no classes"), ({"scores": np.full((1, 4), np.nan)}, "no numbers"),
    (None, "lacks label")])
def test_files_of_another_kind_are_refused_by_name(change, words, tmp_path):
    arrays = dict(GOOD, **change) if change else {key: value for key, value in GOOD.items() if key != "label"}
    with open(str(tmp_path / "a.npz"), "wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ValueError, match=words) as stop:
        read_scores(str(tmp_path / "a.npz"))
    assert "a.npz" in str(stop.value)


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "p.npz").write_bytes(pickle.dumps({"scores": 1}))
    with pytest.raises(ValueError, match=r"p\.npz is no scores file"):
        read_scores(str(tmp_path / "p.npz"))


def test_late_fusion_joins_by_path_and_says_what_is_missing():
    film = scored(["x/a.avi", "x/b.avi", "x/c.avi"], [0, 1, 2],
                  [[.6, .4, 0, 0], [.6, .4, 0, 0], [0, 0, 1, 0]], [True, True, True])
    flow = scored(["x/b", "x/d", "x/a"], [1, 3, 0], [[.1, .9, 0, 0], [0, 0, 0, 1], [.5, .5, 0, 0]], [True, True, False])
    mixed, missing = fuse([("film", film), ("flow", flow)], [1, 3])
    assert mixed.paths == ["x/a.avi", "x/b.avi"] and mixed.labels.tolist() == [0, 1]
    assert mixed.scores[1].tolist() == pytest.approx([.25 * .6 + .75 * .1, .25 * .4 + .75 * .9, 0, 0])
    assert mixed.best[:, 0].tolist() == [0, 1] and mixed.readable.tolist() == [False, True]
    assert missing == {"film": ["x/d"], "flow": ["x/c"]}


def test_a_packed_stores_longer_paths_are_joined_too():
    packed = scored(["test/x/a.avi", "test/x/b.avi"], [0, 1], [[1, 0, 0, 0]] * 2)
    mixed, missing = fuse([("packed", packed), ("film", scored(["x/b.avi"], [1], [[0, 1, 0, 0]]))], [1, 1])
    assert mixed.paths == ["test/x/b.avi"] and missing == {"packed": [], "film": ["x/a"]}


@pytest.mark.parametrize("other, words", [
    (scored(["a.avi"], [1], [[1, 0, 0, 0]]), "different labels"),
    (scored(["b"], [0], [[1, 0, 0, 0]]), "no video is in"),
    (scored(["a.avi", "a.mp4"], [0, 0], [[1, 0, 0, 0]] * 2), "more than once"),
    (scored(["a.avi"], [0], [[1, 0, 0, 0]])._replace(class_names=["1", "2", "3", "4"]), "different classes")])
def test_what_does_not_belong_together_is_not_fused(other, words):
    with pytest.raises(ValueError, match=words):
        fuse([("one", scored(["a.avi"], [0], [[1, 0, 0, 0]])), ("two", other)], [1, 1])
