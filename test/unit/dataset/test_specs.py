import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset import specs
from dataset.lists import Row, write_list
from dataset.specs import DATASETS, DataNotFound, find_dataset, load_videos

UCF, KINETICS = find_dataset("ucf101"), find_dataset("kinetics")
COUNTS = {1: (9537, 3783), 2: (9586, 3734), 3: (9624, 3696)}


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return str(root / name)


def rows_of(part):
    return [(part.relative(row), part.label(row)) for row in range(len(part))]


ARCHERY = ["Archery/v_Archery_g%02d_c01.avi" % group for group in (1, 7, 8, 14, 25)]  # Archery is label 2
HANDSTAND = ["HandstandPushups/v_HandStandPushups_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g09_c02.avi"]
TRAIN = [(ARCHERY[2], 2), (ARCHERY[3], 2), (ARCHERY[4], 2), (HANDSTAND[1], 36)]
TEST = [(ARCHERY[0], 2), (ARCHERY[1], 2), (HANDSTAND[0], 36)]


@pytest.fixture(scope="module")
def complete_ucf(tmp_path_factory):
    """All 13,320 names of UCF-101, as empty files."""
    root = tmp_path_factory.mktemp("ucf")
    table = Path(specs.__file__).parent / "facts" / "ucf101_clips_per_group.tsv"
    with open(str(table)) as file:
        for columns in list(csv.reader(file, delimiter="\t"))[1:]:
            folder, written = root / "data" / columns[1], columns[1].replace("HandstandP", "HandStandP")
            folder.mkdir(parents=True)
            for group, clips in enumerate(columns[2:], 1):
                for clip in range(1, int(clips) + 1):
                    open(str(folder / ("v_%s_g%02d_c%02d.avi" % (written, group, clip))), "wb").close()
    return root


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf_from_names_alone(complete_ucf, split):
    videos = load_videos(UCF, str(complete_ucf), split)
    assert (len(videos.train), len(videos.test)) == COUNTS[split]
    assert len(videos.class_names) == 101 and not any("missing" in note for note in videos.notes)
    for label, name in ((0, "ApplyEyeMakeup"), (34, "Hammering"), (35, "HammerThrow"), (36, "HandstandPushups"),
                        (46, "JumpingJack"), (47, "JumpRope"), (100, "YoYo")):
        assert videos.class_names[label] == name
        rows = np.flatnonzero(videos.test.labels == label)
        assert len(rows) and all(videos.test.relative(row).startswith(name + "/") for row in rows)
    assert set(np.unique(videos.train.labels)) == set(range(101))


def test_ucf_missing_and_strange_videos_are_noted(complete_ucf, tmp_path):
    shutil.copytree(str(complete_ucf), str(tmp_path / "raw"))
    data = tmp_path / "raw" / "data"
    for clip in range(1, 7):
        (data / "Archery" / ("v_Archery_g06_c%02d.avi" % clip)).unlink()
    (data / "YoYo" / "v_YoYo_g01_c01.avi").unlink()
    (data / "HandstandPushups" / "v_HandStandPushups_g01_c01.avi").unlink()
    touch(data, "YoYo/holiday.avi", "YoYo/notes.txt", "Holiday/v_Holiday_g01_c01.avi")
    videos = load_videos(UCF, str(tmp_path / "raw"))
    assert (len(videos.train), len(videos.test)) == (9537, 3783 - 8)
    assert any("8 of 13,320 videos are missing: v_Archery_g06_c01, v_Archery_g06_c02, " in note
               and note.endswith("v_Archery_g06_c05 and 3 more") for note in videos.notes)
    assert any(note.startswith("1 files are not named") for note in videos.notes)


@pytest.mark.parametrize("place", ["", "data", "data/ucf101", "data/UCF-101", "ucf101", "UCF-101", "data/videos",
                                   "data/ucf101/videos", "videos"])
def test_places_of_ucf_videos(tmp_path, place):
    touch(tmp_path / place, *ARCHERY + HANDSTAND)
    videos = load_videos(UCF, str(tmp_path), 1)
    assert rows_of(videos.train) == TRAIN and rows_of(videos.test) == TEST
    assert videos.train.path(0) == str(tmp_path / place / ARCHERY[2]) and videos.train.kind == "video"
    second = load_videos(UCF, str(tmp_path), 2)
    assert rows_of(second.test) == [TRAIN[0], TRAIN[1], TRAIN[3]]


def test_a_folder_in_other_letters_is_still_its_class(tmp_path):
    names = ["HandStandPushups/v_HandstandPushups_g%02d_c01.AVI" % group for group in (1, 9)]
    touch(tmp_path, *names)
    videos = load_videos(UCF, str(tmp_path))
    assert rows_of(videos.test) == [(names[0], 36)] and rows_of(videos.train) == [(names[1], 36)]
    assert any("13,318 of 13,320 videos are missing" in note for note in videos.notes)


def test_reference_lists_win_over_names(tmp_path):
    touch(tmp_path / "data", *ARCHERY + HANDSTAND)
    write(tmp_path, "list_cvt/trainlist01.txt", "0\t2\t%s\n1\t36\t%s\n" % (ARCHERY[0], HANDSTAND[0]))
    write(tmp_path, "list_cvt/testlist01.txt", "0\t2\t%s\n" % ARCHERY[4])
    videos = load_videos(UCF, str(tmp_path))
    assert rows_of(videos.train) == [(ARCHERY[0], 2), (HANDSTAND[0], 36)] and rows_of(videos.test) == [(ARCHERY[4], 2)]
    assert any("list_cvt/trainlist01.txt" in note for note in videos.notes)
    assert rows_of(load_videos(UCF, str(tmp_path), 2).test) == [TRAIN[0], TRAIN[1], TRAIN[3]]  # no list of split 2


def seed_tree(root):
    """The seed's tree with both kinds of lists, in one of the places."""
    touch(root / "videos", *ARCHERY + HANDSTAND)
    touch(root / "rawframes", *["%s/img_%05d.jpg" % (path[:-4], number)
                                for path in ARCHERY + HANDSTAND for number in (1, 2)])
    for part, rows in (("train", TRAIN[::-1]), ("val", TEST)):
        write_list(str(root / ("ucf101_%s_split_3_videos.txt" % part)), "videos", [Row(*row) for row in rows])
        write_list(str(root / ("ucf101_%s_split_3_rawframes.txt" % part)), "rawframes",
                   [Row(path[:-4], label, 2) for path, label in rows])


@pytest.mark.parametrize("place", ["", "data/ucf101"])
def test_lists_of_the_seed(tmp_path, place):
    seed_tree(tmp_path / place)
    videos = load_videos(UCF, str(tmp_path), 3)
    assert rows_of(videos.train) == TRAIN[::-1] and rows_of(videos.test) == TEST and videos.train.kind == "video"
    frames = load_videos(UCF, str(tmp_path), 3, "rawframes")
    assert rows_of(frames.train) == [(path[:-4], label) for path, label in TRAIN[::-1]]
    assert frames.test.kind == "rawframes" and frames.test.num_frames(0) == 2
    assert Path(frames.test.path(0), "img_00001.jpg").is_file()


def test_frame_folders_from_names_where_there_are_no_videos(tmp_path):
    seed_tree(tmp_path)
    shutil.rmtree(str(tmp_path / "videos"))
    videos = load_videos(UCF, str(tmp_path), 1)
    assert videos.train.kind == "rawframes" and videos.train.num_frames(0) is None
    assert rows_of(videos.test) == [(path[:-4], label) for path, label in TEST]
    with pytest.raises(DataNotFound, match="no videos found"):
        load_videos(UCF, str(tmp_path), 1, "video")


@pytest.mark.parametrize("folder", ["annotations", "ucfTrainTestlist"])
@pytest.mark.parametrize("kind", ["video", "rawframes"])
def test_official_annotations(tmp_path, folder, kind):
    seed_tree(tmp_path)
    write(tmp_path, folder + "/trainlist01.txt", "%s 3\r\n%s 37\r\n" % (ARCHERY[0], HANDSTAND[1]))
    write(tmp_path, folder + "/testlist01.txt", ARCHERY[4] + "\r\n")
    names = load_videos(UCF, str(tmp_path), 2).class_names
    write(tmp_path, folder + "/classInd.txt", "".join("%d %s\r\n" % row for row in enumerate(names, 1)))
    videos = load_videos(UCF, str(tmp_path), 1, kind)
    cut = -4 if kind == "rawframes" else None
    assert rows_of(videos.train) == [(ARCHERY[0][:cut], 2), (HANDSTAND[1][:cut], 36)]
    assert rows_of(videos.test) == [(ARCHERY[4][:cut], 2)]
    write(tmp_path, folder + "/classInd.txt", "1 Archery\n2 ApplyLipstick\n")
    with pytest.raises(ValueError, match="classInd.txt: class 1 is Archery, expected ApplyEyeMakeup"):
        load_videos(UCF, str(tmp_path), 1, kind)


def test_a_list_that_names_absent_files(tmp_path):
    seed_tree(tmp_path)
    (tmp_path / "videos" / TRAIN[1][0]).unlink()
    with pytest.raises(ValueError) as caught:
        load_videos(UCF, str(tmp_path), 3)
    path = str(tmp_path / "ucf101_train_split_3_videos.txt")
    assert str(caught.value).startswith(path + ":3: 1 of 4 rows") and TRAIN[1][0] in str(caught.value)
    assert "put them there" in str(caught.value)


@pytest.mark.parametrize("line, problem", [
    ("0\t101\tArchery/v_Archery_g01_c01.avi", "label 101 is out of range: 101 classes have the labels 0 to 100"),
    ("Archery/v_Archery_g01_c01.avi 2", "not 3: a line holds video_id, label"),
    ("0\t2\t../../outside.avi", "leaves the data root"),
])
def test_a_wrong_list_is_refused_at_start(tmp_path, line, problem):
    touch(tmp_path / "data", *ARCHERY)
    path = write(tmp_path, "list_cvt/testlist01.txt", "0\t2\t%s\n%s\n" % (ARCHERY[0], line))
    write(tmp_path, "list_cvt/trainlist01.txt", "0\t2\t%s\n" % ARCHERY[4])
    with pytest.raises(ValueError) as caught:
        load_videos(UCF, str(tmp_path))
    assert str(caught.value).startswith(path + ":2: ") and problem in str(caught.value)


def test_half_a_pair_of_lists(tmp_path):
    touch(tmp_path / "data", *ARCHERY)
    write(tmp_path, "list_cvt/trainlist01.txt", "0\t2\t%s\n" % ARCHERY[4])
    with pytest.raises(DataNotFound, match="list_cvt/testlist01.txt is not"):
        load_videos(UCF, str(tmp_path))


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("motion10", "relations")])
@pytest.mark.parametrize("exists", [False, True])
def test_nothing_there(tmp_path, name, exists):
    spec = DATASETS[name]
    root = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(DataNotFound) as caught:
        load_videos(spec, str(root))
    first, second = str(caught.value).split("\n")
    assert spec.name in first and str(root) in first and "--data-root" in second


def test_only_one_part_there(tmp_path):
    touch(tmp_path, *ARCHERY[2:])
    with pytest.raises(DataNotFound, match="UCF101: no test rows"):
        load_videos(UCF, str(tmp_path))


@pytest.mark.parametrize("spec, split, source, problem", [
    (UCF, 4, "auto", "--split 4: UCF101 has the splits 1 to 3"), (KINETICS, 2, "auto", "--split 2"),
    (UCF, 0, "auto", "--split 0"), (UCF, 1, "gif", "--source gif: takes one of auto, video, rawframes"),
])
def test_wrong_options(tmp_path, spec, split, source, problem):
    with pytest.raises(ValueError, match=problem):
        load_videos(spec, str(tmp_path), split, source)


def test_names_of_data_sets():
    for name in ("UCF101", "ucf101", "UCF-101"):
        assert find_dataset(name).name == "UCF101"
    assert find_dataset("Kinetics").name == "Kinetics400" and find_dataset("MOTION10").name == "motion10"
    with pytest.raises(ValueError, match="nope: takes one of UCF101, HMDB51, Kinetics400, motion10, relations, folder"):
        find_dataset("nope")
    assert UCF.default_root == "dataset/UCF101/raw" and dict(UCF.defaults) == {}
    assert UCF.scale_range[1] * 224 == 340 and UCF.eval_scale * 224 == 256
