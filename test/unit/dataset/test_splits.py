"""Training and test parts of one's own videos: no source on both sides, each class has its share, always the same."""
from collections import Counter

import pytest

from dataset.lists import Row
from dataset.splits import divide, join_groups, source_of, sources_of


@pytest.mark.parametrize("path, source", [
    ("Dive/v_Dive_g07_c02.avi", "Dive/g07"), ("run/ab-CD_ef-12_000010_000020.mp4", "ab-CD_ef-12"),
    ("run/park_001.mp4", "run/park"), ("run/park-clip2.mp4", "run/park"), ("run/park (3).MP4", "run/park"),
    ("run/park part 12.mp4", "run/park"), ("run/holiday.mp4", "run/holiday"), ("run/0001.mp4", "run/0001"),
    ("run/GOPR0042.mp4", "run/GOPR")])
def test_the_source_of_a_clip_is_read_from_its_name(path, source):
    assert source_of(path) == source


def rows_of(classes, groups, clips):
    return [Row("c%d/s%d_%d.avi" % (label, group, clip), label)
            for label in range(classes) for group in range(groups) for clip in range(clips)]


def test_sources_stay_whole_and_classes_keep_their_share():
    rows = rows_of(5, 20, 3)
    names = ["c%d" % label for label in range(5)]
    split = divide(rows, [source_of(row.path) for row in rows], names, 0.25, 0)
    assert sorted(split.train + split.test) == sorted(rows) and not split.notes
    assert not {source_of(row.path) for row in split.train} & {source_of(row.path) for row in split.test}
    assert Counter(row.label for row in split.test) == {label: 15 for label in range(5)}


def test_the_same_seed_gives_the_same_split_in_any_order_and_another_seed_another():
    rows = rows_of(3, 12, 2)
    groups = [source_of(row.path) for row in rows]
    split = divide(rows, groups, "abc", 0.25, 7)
    backwards = divide(rows[::-1], groups[::-1], "abc", 0.25, 7)
    assert sorted(backwards.test) == sorted(split.test)
    assert sorted(divide(rows, groups, "abc", 0.25, 8).test) != sorted(split.test)


def test_a_source_of_two_classes_stays_on_one_side():
    rows = [Row("%s/%s_%06d_%06d.mp4" % (name, source, start, start + 10), label)
            for label, name in enumerate("ab") for source in "uvwxyz" for start in (0, 10)]
    split = divide(rows, sources_of(rows), "ab", 0.3, 0)
    assert split.test and not {row.path[2] for row in split.train} & {row.path[2] for row in split.test}


def test_files_of_equal_content_are_one_source():
    groups = ["a", "b", "c", "d", "e"]
    assert join_groups(groups, ["x", "", "x", "y", "y"]) == ["a", "b", "a", "d", "d"]
    assert len(set(join_groups(["a", "b", "c", "a"], ["x", "y", "y", "y"]))) == 1


def test_names_that_only_count_are_a_source_each():
    rows = [Row("run/run_%03d.mp4" % number, 0) for number in range(8)]
    rows += [Row("walk/a_1.mp4", 1), Row("walk/b_1.mp4", 1)]
    assert len(set(sources_of(rows))) == 10
    split = divide(rows, sources_of(rows), ["run", "walk"], 0.25, 0)
    assert Counter(row.label for row in split.test) == {0: 2, 1: 1}


def test_a_class_of_one_source_is_named_and_shares_are_checked():
    rows = [Row("a/x.mp4", 0), Row("b/x.mp4", 1), Row("b/y.mp4", 1)]
    split = divide(rows, sources_of(rows), ["one", "two"], 0.5, 0)
    assert "1 classes have no video to test with" in split.notes[0] and "one" in split.notes[0]
    with pytest.raises(ValueError, match="--test-share"):
        divide(rows, sources_of(rows), ["one", "two"], 1.0, 0)
