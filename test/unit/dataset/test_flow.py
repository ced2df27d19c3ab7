"""Where flow is found, how much of it there is, and what to run where there is none."""
import pytest
from test_specs import ARCHERY, HANDSTAND, TEST, TRAIN, UCF, rows_of, seed_tree, touch

from dataset.flow import flow_remedy
from dataset.specs import DataNotFound, find_dataset, load_videos

COMMAND = "python -m dataset.prepare UCF101 --source PATH --output %s --flow"


def flow_files(root, paths=ARCHERY + HANDSTAND):
    touch(root / "rawframes", *["%s/flow_%s_00001.jpg" % (path[:-4], axis) for path in paths for axis in "xy"])


def test_flow_beside_raw_frames_is_one_less_than_the_lists_count(tmp_path):
    seed_tree(tmp_path)
    flow_files(tmp_path)
    videos = load_videos(UCF, str(tmp_path), 3, modality="flow")
    assert (videos.train.kind, videos.train.modality) == ("flow", "flow")
    assert rows_of(videos.train) == [(path[:-4], label) for path, label in TRAIN[::-1]]
    assert videos.train.num_frames(0) == 1 and videos.test.num_frames(2) == 1  # of two frames
    pictures = load_videos(UCF, str(tmp_path), 3)
    assert (pictures.train.kind, pictures.train.modality) == ("video", "rgb")
    assert load_videos(UCF, str(tmp_path), 3, "rawframes").train.num_frames(0) == 2


def test_flow_by_lists_of_the_reference_and_from_names(tmp_path):
    seed_tree(tmp_path)
    flow_files(tmp_path)
    named = load_videos(UCF, str(tmp_path), 1, "rawframes", "flow")  # split 1 has no lists here
    assert rows_of(named.test) == [(path[:-4], label) for path, label in TEST] and named.test.num_frames(0) is None
    lists = tmp_path / "list_cvt"
    lists.mkdir()
    for part, rows in (("train", TRAIN), ("test", TEST[::-1])):
        (lists / (part + "list01.txt")).write_text("".join("%d\t%d\t%s\n" % (number, row[1], row[0])
                                                           for number, row in enumerate(rows)))
    listed = load_videos(UCF, str(tmp_path), 1, modality="flow")
    assert rows_of(listed.test) == [(path[:-4], label) for path, label in TEST[::-1]] and listed.train.kind == "flow"


@pytest.mark.parametrize("source", ["video", "packed", "auto"])
def test_sources_without_flow_are_refused(tmp_path, source):
    seed_tree(tmp_path)
    if source == "auto":
        touch(tmp_path, "packed.zip")
    with pytest.raises(ValueError, match="--modality flow") as caught:
        load_videos(UCF, str(tmp_path), 1, source, "flow")
    assert COMMAND % tmp_path in str(caught.value)


def test_what_makes_flow_is_said_where_there_is_none(tmp_path):
    touch(tmp_path / "videos", *ARCHERY)
    with pytest.raises(DataNotFound, match="UCF101: no raw frames found below") as caught:
        load_videos(UCF, str(tmp_path), 1, modality="flow")
    assert COMMAND % tmp_path in str(caught.value)
    seed_tree(tmp_path)
    with pytest.raises(DataNotFound, match="no flow_x_00001.jpg and flow_y_00001.jpg in .*, nor in 3 other") as caught:
        load_videos(UCF, str(tmp_path), 3, modality="flow")
    assert COMMAND % tmp_path in str(caught.value) and TRAIN[-1][0][:-4] in str(caught.value)


def test_a_folder_without_flow_among_others_is_named(tmp_path):
    seed_tree(tmp_path)
    flow_files(tmp_path, ARCHERY)
    notes = load_videos(UCF, str(tmp_path), 3, modality="flow").notes
    assert any("1 of 4 training videos looked at have no flow" in note and "HandStand" in note for note in notes)
    assert any("1 of 3 test videos looked at have no flow" in note for note in notes)


def test_the_rendered_set_needs_a_folder_of_its_own():
    command = flow_remedy("motion10", "/r", find_dataset("motion10").render is not None)
    assert "python -m dataset.prepare folder --source /r/data --output DIR --flow" in command
    assert "--dataset folder --data-root DIR" in command
