import os

import pytest

from dataset import layouts
from dataset.lists import Row


def make(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_listing(tmp_path):
    make(tmp_path, "b/x.avi", "a/x.avi", ".git/x", "file")
    os.symlink(str(tmp_path / "a"), str(tmp_path / "link"))
    assert layouts.listed(str(tmp_path)) == ["a", "b", "file", "link"]
    assert layouts.subfolders(str(tmp_path)) == ["a", "b", "link"]
    for nothing in ("nowhere", "file"):
        assert layouts.listed(str(tmp_path / nothing)) == layouts.subfolders(str(tmp_path / nothing)) == []


def test_names_and_groups():
    rows = [Row("Yo Yo/v_YoYo_g%02d_c03.avi" % group, 1) for group in range(1, 26)]
    strange = [Row("Yo Yo/" + name, 1) for name in
               ("v_YoYo_g1_c03.avi", "v_Walk_g01_c01.avi", "YoYo_g01_c01.avi", "v_YoYo_g01_c01.avi.part.avi")]
    videos = layouts.grouped_rows(rows + strange, ["Walk", "Yo-Yo"])
    assert [video.row for video in videos] == rows
    assert [(video.group, video.clip) for video in videos] == [(group, 3) for group in range(1, 26)]
    for split, first, last in ((1, 1, 7), (2, 8, 14), (3, 15, 21)):
        train, test = layouts.split_by_group(videos, split)
        assert test == rows[first - 1:last] and train == rows[:first - 1] + rows[last:]


@pytest.mark.parametrize("kind, gone", [("video", {1, 3}), ("rawframes", {0, 1, 3})])
def test_absent_rows(tmp_path, kind, gone):
    make(tmp_path, "a/film.avi", "a/frames/img_00001.jpg")
    rows = [Row("a/film.avi", 0), Row("a/other.avi", 0), Row("a/frames", 0), Row("b/film.avi", 0)]
    assert layouts.absent(rows, str(tmp_path), kind) == gone


def test_files_are_found_in_order(tmp_path):
    make(tmp_path, "[x]/list/b_train.txt", "[x]/list/a_train.txt", "y/second.txt", "y/list/c_train.txt")
    homes = [str(tmp_path / "[x]"), str(tmp_path / "y")]
    assert layouts.find_file(homes, ["first.txt", "second.txt"]) == str(tmp_path / "y" / "second.txt")
    assert layouts.find_file(homes, ["list/*_train.txt"]) == str(tmp_path / "[x]" / "list" / "a_train.txt")
    assert layouts.find_file(homes, ["list"]) is None


def test_some_of():
    assert layouts.some_of(["a"]) == "a" and layouts.some_of(list("abcde")) == "a, b, c, d, e"
    assert layouts.some_of(list("abcdefg")) == "a, b, c, d, e and 2 more"
