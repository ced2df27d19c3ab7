from pathlib import Path

import pytest

from dataset import specs
from dataset.specs import DataNotFound, find_dataset, load_videos

HMDB, KINETICS, OWN = (find_dataset(name) for name in ("hmdb51", "kinetics", "folder"))


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


def hmdb_tree(root, folder):
    names = load_class_names("hmdb51_classes.tsv")
    for name in names:
        write(root, "%s/%s_test_split1.txt" % (folder, name), "a_%s.avi 1 \nb.avi 2 \nc.avi 0 \n" % name)
        touch(root / "data", "%s/a_%s.avi" % (name, name), name + "/b.avi", name + "/c.avi")
    return names


def load_class_names(file):
    with open(str(Path(specs.__file__).parent / "facts" / file)) as lines:
        return [line.split("\t")[1].strip() for line in lines][1:]


@pytest.mark.parametrize("folder", ["testTrainMulti_7030_splits", "data/splits"])
def test_hmdb_from_its_split_files(tmp_path, folder):
    names = hmdb_tree(tmp_path, folder)
    videos = load_videos(HMDB, str(tmp_path))
    assert len(names) == 51 and videos.class_names == names
    assert rows_of(videos.train) == [("%s/a_%s.avi" % (name, name), label) for label, name in enumerate(names)]
    assert rows_of(videos.test) == [(name + "/b.avi", label) for label, name in enumerate(names)]
    (tmp_path / folder / "wave_test_split1.txt").unlink()
    with pytest.raises(DataNotFound, match="lacks wave_test_split1.txt"):
        load_videos(HMDB, str(tmp_path))
    with pytest.raises(DataNotFound, match="no rows found"):
        load_videos(HMDB, str(tmp_path), 2)


def test_hmdb_from_the_reference_lists(tmp_path):
    touch(tmp_path / "data", "wave/a.avi", "brush_hair/b.avi")
    write(tmp_path, "list_cvt/hmdb51_split2_train.txt", "0\t50\twave/a.avi\n")
    write(tmp_path, "list_cvt/hmdb51_split2_test.txt", "0\t0\tbrush_hair/b.avi\n")
    videos = load_videos(HMDB, str(tmp_path), 2)
    assert rows_of(videos.train) == [("wave/a.avi", 50)] and rows_of(videos.test) == [("brush_hair/b.avi", 0)]


def test_kinetics_by_csv_goes_without_what_is_missing(tmp_path):
    touch(tmp_path / "data", "train/air drumming/one_000001_000011.mkv", "val/abseiling/two_000005_000015.mp4")
    head = "label,youtube_id,time_start,time_end,split\n"
    write(tmp_path, "train.csv", head + "air drumming,one,1,11,train\nabseiling,gone,3,13,train\n")
    write(tmp_path, "validate.csv", head + "abseiling,two,5,15,validate\n")
    videos = load_videos(KINETICS, str(tmp_path))
    assert rows_of(videos.train) == [("air drumming/one_000001_000011.mkv", 1)]
    assert videos.test.path(0) == str(tmp_path / "data/val/abseiling/two_000005_000015.mp4")
    assert len(videos.class_names) == 400
    assert any("1 of 2 videos are not there" in note and "gone_000003_000013" in note for note in videos.notes)


def test_kinetics_by_reference_lists_and_by_folders(tmp_path):
    touch(tmp_path / "data", "train_avi-x256/zumba/a.avi", "val_avi-x256/zumba/b.avi", "train/readme.txt")
    videos = load_videos(KINETICS, str(tmp_path))
    assert rows_of(videos.train) == [("zumba/a.avi", 399)] and rows_of(videos.test) == [("zumba/b.avi", 399)]
    write(tmp_path, "list_cvt/kinetics_train_w-missed-v1_avi.txt", "5\t399\tzumba/a.avi\n6\t0\tabseiling/lost.avi\n")
    write(tmp_path, "list_cvt/kinetics_val_w-missed-v1_avi.txt", "5\t399\tzumba/b.avi\n")
    videos = load_videos(KINETICS, str(tmp_path))
    assert rows_of(videos.train) == [("zumba/a.avi", 399)]
    assert any("abseiling/lost.avi" in note for note in videos.notes)


@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_a_folder_of_ones_own(tmp_path, test_folder):
    touch(tmp_path, "train/cat/1 é.MP4", "train/Dog/2.mov", "train/Dog/readme.txt", test_folder + "/Dog/3.avi",
          "train/.hidden/4.avi")
    videos = load_videos(OWN, str(tmp_path))
    assert videos.class_names == ["cat", "Dog"]
    assert rows_of(videos.train) == [("cat/1 é.MP4", 0), ("Dog/2.mov", 1)]
    assert rows_of(videos.test) == [("Dog/3.avi", 1)]
    touch(tmp_path, test_folder + "/bird/5.avi")
    with pytest.raises(ValueError, match="folders of no class: bird"):
        load_videos(OWN, str(tmp_path))


def test_lists_of_ones_own(tmp_path):
    touch(tmp_path, "clips/a b.mp4", "clips/c.mp4")
    write(tmp_path, "classes.txt", "sitting\nstanding up\n")
    write(tmp_path, "train.txt", "clips/a b.mp4 1\n")
    write(tmp_path, "val.txt", "clips/c.mp4 0\n")
    videos = load_videos(OWN, str(tmp_path))
    assert videos.class_names == ["sitting", "standing up"]
    assert rows_of(videos.train) == [("clips/a b.mp4", 1)] and rows_of(videos.test) == [("clips/c.mp4", 0)]
    write(tmp_path, "val.txt", "clips/c.mp4 2\n")
    with pytest.raises(ValueError, match=r"val.txt:1: label 2 is out of range: 2 classes"):
        load_videos(OWN, str(tmp_path))
