"""From archives as they are published to a tree that trains: each layout, half-finished runs, and what is missing."""
import json
import os
import shutil
import tarfile
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_video
from film_sets import damaged, stop_when

from dataset import check, frames
from dataset import prepare as command
from dataset.frames import BOUND, flow_levels, write_frames
from dataset.gather import UNPACKED
from dataset.prepare import INCOMPLETE, READY, main
from dataset.specs import find_dataset, load_videos

ROOT = Path(__file__).resolve().parents[3]
CLASSES = ("Archery", "HandstandPushups", "YoYo")
SMALL = [[0] * 25 for _ in range(101)]
for _label in (2, 36, 100):
    SMALL[_label][0] = SMALL[_label][7] = SMALL[_label][14] = 1  # a clip in a test group of each split


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Twelve different small videos."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(12):
        write_video(folder / ("%d.avi" % number), number, (1, 0))
    return [folder / ("%d.avi" % number) for number in range(12)]


@pytest.fixture
def small_ucf(monkeypatch):
    """UCF-101 as it would be with nine videos."""
    spec = find_dataset("UCF101")._replace(counts=lambda: SMALL)
    monkeypatch.setattr(command, "find_dataset", lambda name: spec)
    return spec


def ucf_names():
    written = {"HandstandPushups": "HandStandPushups"}
    return ["%s/v_%s_g%02d_c01.avi" % (name, written.get(name, name), group) for name in CLASSES
            for group in (1, 8, 15)]


def as_zip(path, files):
    with zipfile.ZipFile(str(path), "w") as archive:
        for name, film in files.items():
            archive.write(str(film), name)
    return path


def as_tar(path, files):
    with tarfile.open(str(path), "w:gz") as archive:
        for name, film in files.items():
            archive.add(str(film), name)
    return path


def as_folder(path, files):
    for name, film in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(film), str(path / name))
    return path


def tree(folder):
    """Path -> bytes of all that a preparation leaves; the index holds times of change, so its lines are left out."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "index.jsonl"}


def prepare(name, source, output, *more):
    return main([name, "--source", str(source), "--output", str(output), "--workers", "2"] + [str(one) for one in more])


@pytest.mark.parametrize("pack, prefix", [(as_zip, "UCF-101/"), (as_tar, "UCF101/videos/"), (as_folder, ""),
                                          (as_folder, "data/UCF-101/")])
def test_ucf_in_each_shape(films, tmp_path, small_ucf, pack, prefix, capsys):
    source = pack(tmp_path / {as_zip: "u.zip", as_tar: "u.tar.gz", as_folder: "u"}[pack],
                  {prefix + name: film for name, film in zip(ucf_names(), films)})
    before = tree(source) if source.is_dir() else source.read_bytes()
    assert prepare("UCF101", source, tmp_path / "out") == READY
    assert "ready: 6 videos to train with, 3 to test with, 101 classes (split 1 of 3)" in capsys.readouterr().out
    assert (tree(source) if source.is_dir() else source.read_bytes()) == before
    found = tree(tmp_path / "out")
    assert found["videos/Archery/v_Archery_g08_c01.avi"] == films[1].read_bytes()
    assert found["ucf101_val_split_2_videos.txt"].decode().splitlines() == [
        "Archery/v_Archery_g08_c01.avi 2", "HandstandPushups/v_HandStandPushups_g08_c01.avi 36",
        "YoYo/v_YoYo_g08_c01.avi 100"]
    line = found["list_cvt/testlist01.txt"].decode().splitlines()[1]
    assert line.endswith("36\tHandstandPushups/v_HandStandPushups_g01_c01.avi")
    assert len(found["classes.txt"].decode().splitlines()) == 101 and UNPACKED not in os.listdir(str(tmp_path / "out"))
    for split in (1, 2, 3):
        videos = load_videos(small_ucf, str(tmp_path / "out"), split)
        assert (len(videos.train), len(videos.test)) == (6, 3) and videos.train.num_known == 6
    assert prepare("UCF101", source, tmp_path / "out") == READY  # again: nothing changes
    assert tree(tmp_path / "out") == found


def test_what_is_missing_is_listed(films, tmp_path, small_ucf, capsys):
    names = ucf_names()[1:]
    source = as_folder(tmp_path / "u", {name: film for name, film in zip(names, films)})
    assert prepare("UCF101", source, tmp_path / "out") == INCOMPLETE
    assert "1 videos are missing:\n  v_Archery_g01_c01" in capsys.readouterr().out
    as_folder(source, {"late/" + ucf_names()[0]: films[10]})
    assert prepare("UCF101", source, tmp_path / "out") == READY


def test_official_annotations_decide_the_splits(films, tmp_path, small_ucf):
    files = {name: film for name, film in zip(ucf_names(), films)}
    source = as_folder(tmp_path / "u", files)
    with zipfile.ZipFile(str(source / "UCF101TrainTestSplits.zip"), "w") as archive:
        for split in (1, 2, 3):
            names = ucf_names() if split > 1 else ucf_names()[::-1]
            archive.writestr("ucfTrainTestlist/trainlist%02d.txt" % split, "".join(
                "%s %d\n" % (name, {"A": 3, "H": 37, "Y": 101}[name[0]]) for name in names[:5]))
            archive.writestr("ucfTrainTestlist/testlist%02d.txt" % split, "\n".join(names[5:]))
    assert prepare("UCF101", source, tmp_path / "out") == READY
    videos = load_videos(small_ucf, str(tmp_path / "out"))
    assert [videos.train.relative(row) for row in range(5)] == ucf_names()[::-1][:5]


def test_annotations_that_contradict_each_other_are_refused(films, tmp_path, small_ucf, capsys):
    source = as_folder(tmp_path / "u", {name: film for name, film in zip(ucf_names(), films)})
    for folder, line in (("a", "Archery/v_Archery_g01_c01.avi 3\n"), ("b", "Archery/v_Archery_g08_c01.avi 3\n")):
        (source / folder).mkdir()
        (source / folder / "trainlist01.txt").write_text(line)
    assert prepare("UCF101", source, tmp_path / "out") == INCOMPLETE
    assert "different files for one place (ucfTrainTestlist/trainlist01.txt)" in capsys.readouterr().err


def test_a_run_killed_on_the_way_is_gone_on_with(films, tmp_path, monkeypatch):
    source = as_zip(tmp_path / "u.zip", {"UCF-101/" + name: film for name, film in zip(ucf_names(), films)})
    more, whole, killed = ("--rawframes",), tmp_path / "whole", tmp_path / "killed"
    assert prepare("UCF101", source, whole, *more) == INCOMPLETE
    monkeypatch.setattr(frames, "write_frames", lambda task: time.sleep(0.2) or write_frames(task))
    assert stop_when(lambda: list(killed.glob("rawframes/*/*_c01")),
                     lambda: prepare("UCF101", source, killed, *more)) == -9
    monkeypatch.undo()
    assert 1 <= len(list(killed.glob("rawframes/*/*_c01"))) < 9 and list(killed.glob(UNPACKED + "/*u.zip"))
    (killed / "index.jsonl").write_bytes((whole / "index.jsonl").read_bytes()[:700])  # the line in work is cut
    for path in (killed / "videos" / "YoYo").iterdir():  # as where there are no hard links and a copy was cut off
        path.unlink()
    (killed / UNPACKED / "copy.part").write_bytes(b"half")
    assert prepare("UCF101", source, killed, *more) == INCOMPLETE
    assert tree(killed) == tree(whole) and not (killed / UNPACKED).exists()


def test_hmdb_needs_its_split_files(films, tmp_path, capsys):
    spec = find_dataset("HMDB51")
    names = [line.split("\t")[1] for line in
             (ROOT / "dataset" / "facts" / "hmdb51_classes.tsv").read_text().splitlines()[1:]]
    files = {"hmdb51_org/%s/Some Film_(%s) h_nm.avi" % (name, number): film
             for number, (name, film) in enumerate(zip(names[:3], films))}
    outer = as_zip(tmp_path / "all.zip", {"%s.zip" % name: as_zip(tmp_path / (name + ".zip"), {
        "%s/%s" % (name, path.rsplit("/", 1)[1]): film}) for (path, film), name in zip(files.items(), names)})
    assert prepare("HMDB51", outer, tmp_path / "out") == INCOMPLETE
    said = capsys.readouterr().err
    assert "testTrainMulti_7030_splits" in said and "added to --source" in said
    splits = tmp_path / "splits"
    splits.mkdir()
    for label, name in enumerate(names):
        for split in (1, 2, 3):
            (splits / ("%s_test_split%d.txt" % (name, split))).write_text(
                "Some Film_(%d) h_nm.avi %d\n" % (label, 2 if label == 2 else 1) if label < 3 else "")
    assert main(["HMDB51", "--source", str(outer), str(splits), "--output", str(tmp_path / "out")]) == READY
    videos = load_videos(spec, str(tmp_path / "out"), 3)
    assert (len(videos.train), len(videos.test)) == (2, 1) and videos.test.label(0) == 2


def test_file_endings_in_capitals_fit_the_annotations(films, tmp_path, small_ucf):
    source = as_folder(tmp_path / "u", {name.replace(".avi", ".AVI"): film for name, film in zip(ucf_names(), films)})
    (source / "trainlist01.txt").write_text("".join(name + " %d\n" % {"A": 3, "H": 37, "Y": 101}[name[0]]
                                                    for name in ucf_names()[:5]))
    (source / "testlist01.txt").write_text("\n".join(ucf_names()[5:]))
    assert prepare("UCF101", source, tmp_path / "out") == READY
    videos = load_videos(small_ucf, str(tmp_path / "out"))
    assert videos.train.relative(0) == "Archery/v_Archery_g01_c01.AVI" and len(videos.test) == 4


def test_kinetics_goes_without_what_is_gone(films, tmp_path, capsys):
    head = "label,youtube_id,time_start,time_end,split\n"
    source = as_folder(tmp_path / "k", {"part_0/aaaaaaaaaaa_000001_000011.mp4": films[0],
                                        "part_1/bbb-bb_bbbb_000005_000015.mp4": films[1],
                                        "replacement_for_corrupted_k400/bbb-bb_bbbb_000005_000015.mp4": films[3],
                                        "val/ccccccccccc_000002_000012.mp4": films[2]})
    (source / "train.csv").write_text(head + "abseiling,aaaaaaaaaaa,1,11,train\nzumba,bbb-bb_bbbb,5,15,train\n"
                                             "zumba,gonegonegon,0,10,train\n")
    (source / "validate.csv").write_text(head + "zumba,ccccccccccc,2,12,validate\n")
    assert prepare("Kinetics400", source, tmp_path / "out", "--rawframes") == READY
    said = capsys.readouterr().out
    assert "ready: 2 videos to train with, 1 to test with" in said
    assert "1 listed videos are not in the source and are left out: train/zumba/gonegonegon_000000_000010.mp4" in said
    assert (tmp_path / "out/missing.txt").read_text() == "train/zumba/gonegonegon_000000_000010.mp4\n"
    videos = load_videos(find_dataset("Kinetics400"), str(tmp_path / "out"))
    assert [videos.train.label(row) for row in range(2)] == [0, 399] and videos.test.label(0) == 399
    with open(videos.train.path(1), "rb") as film:
        assert film.read() == films[3].read_bytes()  # not the corrupted one
    framed = load_videos(find_dataset("Kinetics400"), str(tmp_path / "out"), source="rawframes")
    assert (len(framed.train), len(framed.test), framed.train.num_frames(1)) == (2, 1, 20)
    assert any("1 of 3 videos are not there and are left out" in note for note in videos.notes)
    report = tmp_path / "report.json"
    assert check.main(["Kinetics400", "--data-root", str(tmp_path / "out"), "--json", str(report)]) == check.SOUND
    assert len(json.loads(report.read_text())["missing"]) == 1


def own_files(films):
    names = ("jump up/a_1.avi", "jump up/a_2.AVI", "jump up/b_1.avi", "jump up/c.avi", "\u8dd1\u6b65/d.avi",
             "\u8dd1\u6b65/e.avi", "\u8dd1\u6b65/f.avi")
    files = {"my clips/" + name: film for name, film in zip(names, films)}
    files["my clips/\u8dd1\u6b65/copy of d.avi"] = films[4]
    return files


def test_ones_own_folder_with_spaces_and_other_alphabets(films, tmp_path):
    source = as_folder(tmp_path / "src", own_files(films))
    assert prepare("folder", source, tmp_path / "out", "--test-share", "0.3") == READY
    videos = load_videos(find_dataset("folder"), str(tmp_path / "out"))
    assert videos.class_names == ["jump up", "\u8dd1\u6b65"]
    sides = [{part.relative(row) for row in range(len(part))} for part in (videos.train, videos.test)]
    assert len(sides[0]) + len(sides[1]) == 8 and not sides[0] & sides[1]
    for together in (("jump up/a_1.avi", "jump up/a_2.AVI"), ("\u8dd1\u6b65/d.avi", "\u8dd1\u6b65/copy of d.avi")):
        assert len({together[0] in side for side in sides}) == 2
        assert [together[0] in side for side in sides] == [together[1] in side for side in sides]


def test_ones_own_broken_videos_are_named_and_what_has_no_frame_left_out(films, tmp_path, capsys):
    source = as_folder(tmp_path / "src", dict(zip(("a/1.avi", "a/2.avi", "b/3.avi", "b/4.avi"), films)))
    (source / "a" / "text.avi").write_text("no film")
    damaged("xvid_no_b.avi", source / "b" / "cut.avi", 20000, None)
    assert prepare("folder", source, tmp_path / "out") == READY
    captured = capsys.readouterr()
    assert "2 videos are broken: videos/a/text.avi, videos/b/cut.avi; python -m dataset.check" in captured.out
    assert "1 videos cannot be read and are left out of the lists: a/text.avi" in captured.out
    assert "\n\n" not in captured.err  # nothing to clear where no line renews itself
    rows = (tmp_path / "out/train.txt").read_text() + (tmp_path / "out/test.txt").read_text()
    assert rows.count("\n") == 5 and "b/cut.avi 1" in rows


def test_names_that_are_no_text(films, tmp_path, capsys):
    """As archives of old Windows machines hold them: bytes of another encoding."""
    names = [os.fsdecode(name) for name in (b"caf\xe9/a\xe9.avi", b"caf\xe9/b.avi", b"x/c.avi", b"x/d.avi",
                                           b"z\xe9.avi")]
    source = as_folder(tmp_path / "src", dict(zip(names, films)))
    assert prepare("folder", source, tmp_path / "out", "--rawframes") == READY
    said = capsys.readouterr().out
    assert "left out: z%E9.avi" in said and "no pictures" not in said
    videos = load_videos(find_dataset("folder"), str(tmp_path / "out"))
    assert videos.class_names == ["caf%E9", "x"] and len(videos.train) + len(videos.test) == 4
    assert (tmp_path / "out/videos/caf%E9/a%E9.avi").is_file() and len(os.listdir(str(tmp_path / "out/rawframes"))) == 3


def test_classes_that_differ_in_signs_alone_stay_apart(films, tmp_path):
    source = as_folder(tmp_path / "src", dict(zip(("C/1.avi", "C/2.avi", "C++/3.avi", "C++/4.avi", "!/5.avi"), films)))
    assert prepare("folder", source, tmp_path / "out") == READY
    videos = load_videos(find_dataset("folder"), str(tmp_path / "out"))
    assert videos.class_names == ["!", "C", "C++"]
    for part in (videos.train, videos.test):
        for row in range(len(part)):
            assert part.relative(row).split("/")[0] == videos.class_names[part.label(row)]


def test_a_csv_in_another_spelling_of_accents_and_what_it_may_not_say(films, tmp_path, capsys):
    source = as_folder(tmp_path / "src", {"ru\u0308ck.avi": films[0], "vor.avi": films[1], "a.avi": films[2]})
    table = tmp_path / "mine.csv"
    table.write_text("path,label\nr\u00fcck.avi,a/b\nvor.avi,c\na.avi,c\n", encoding="utf-8")
    assert prepare("folder", source, tmp_path / "out", "--csv", table) == READY
    assert (tmp_path / "out/videos/a_b/ru\u0308ck.avi").exists()
    for line, word in (("vor.avi,../..", "does not begin with a dot"), ("vor.avi,d", "stands there twice"),
                       ("a.avi,a_b", "twice"), ("a.avi", "holds path, label")):
        table.write_text("path,label\nvor.avi,c\na.avi,c\n" + line + "\n", encoding="utf-8")
        assert prepare("folder", source, tmp_path / "out2", "--csv", table) == INCOMPLETE
        assert word in capsys.readouterr().err
    table.write_text("path,label\nvor.avi,a_b\na.avi,a/b\n", encoding="utf-8")
    assert prepare("folder", source, tmp_path / "out2", "--csv", table) == INCOMPLETE
    assert "would share a folder" in capsys.readouterr().err
    assert prepare("UCF101", source, tmp_path / "out2", "--csv", table) == INCOMPLETE
    assert "--csv" in capsys.readouterr().err


def test_the_packed_store_comes_with_it(films, tmp_path, capsys):
    source = as_folder(tmp_path / "src", dict(zip(("a/1.avi", "a/2.avi", "b/3.avi", "b/4.avi"), films)))
    assert prepare("folder", source, tmp_path / "out", "--pack", "--short-side", "32") == READY
    assert "4 videos, 80 frames of at most 32 pixels" in capsys.readouterr().out
    store, tree_of = (load_videos(find_dataset("folder"), str(tmp_path / "out" / place)) for place in ("packed", ""))
    assert store.train.kind == "packed" and store.class_names == tree_of.class_names
    assert store.train.labels.tolist() == tree_of.train.labels.tolist()
    assert store.test.open(0).read([3]).shape == (1, 32, 32, 3)
    before = (tmp_path / "out/packed/shard-00000.tar").read_bytes()
    assert prepare("folder", source, tmp_path / "out", "--pack", "--short-side", "32") == READY
    assert "packed before" in capsys.readouterr().out
    assert prepare("folder", source, tmp_path / "other", "--pack", "--short-side", "32", "--workers", "1") == READY
    assert (tmp_path / "other/packed/shard-00000.tar").read_bytes() == before


def test_a_csv_names_classes_parts_and_groups(films, tmp_path, capsys):
    source = as_folder(tmp_path / "src", dict(zip(("x/1.avi", "x/2.avi", "y/3.avi", "y/4.avi"), films)))
    table = tmp_path / "mine.csv"
    table.write_text("path,label,split\nx/1.avi,wave,train\nx/2.avi,wave,test\ny/3.avi,clap,train\ny/4.avi,clap,val\n")
    assert prepare("folder", source, tmp_path / "out", "--csv", table) == READY
    said = capsys.readouterr().out
    assert "2 videos to train with, 1 to test with" in said and "1 videos are in neither train nor val" in said
    table.write_text("path,label\nx/9.avi,wave\n")
    assert prepare("folder", source, tmp_path / "out2", "--csv", table) == INCOMPLETE
    assert "x/9.avi" in capsys.readouterr().err
    table.write_bytes(b"path,label\nx/1.avi,h\xf6ren\n")
    assert prepare("folder", source, tmp_path / "out2", "--csv", table) == INCOMPLETE
    assert "mine.csv: is not UTF-8" in capsys.readouterr().err
    table.write_text("path,label,split,group\nx/1.avi,a,train,g1\nx/2.avi,a,test,g1\ny/3.avi,b,train,g2\n"
                     "y/4.avi,b,test,g3\n")
    assert prepare("folder", source, tmp_path / "out2", "--csv", table) == READY
    assert "1 groups are in both train and test: g1" in capsys.readouterr().out


def test_pictures_and_flow(films, tmp_path):
    source = as_folder(tmp_path / "src", dict(zip(("a/1.avi", "a/2.avi", "b/3.avi", "b/4.avi"), films)))
    more = ("--rawframes", "--flow", "--short-side", "24", "--quality", "90")
    assert prepare("folder", source, tmp_path / "out", *more) == READY
    folder = tmp_path / "out" / "rawframes" / "a" / "1"
    count = len(list(folder.glob("img_*.jpg")))
    assert count and len(list(folder.glob("flow_x_*.jpg"))) == len(list(folder.glob("flow_y_*.jpg"))) == count - 1
    assert min(cv2.imread(str(folder / "img_00001.jpg")).shape[:2]) == 24
    line = (tmp_path / "out" / "train_rawframes.txt").read_text().splitlines()[0].split()
    assert line[1] == str(count)
    videos = load_videos(find_dataset("folder"), str(tmp_path / "out"), source="rawframes")
    assert videos.train.kind == "rawframes" and videos.train.num_frames(0) == count
    again = tree(tmp_path / "out")
    shutil.rmtree(str(tmp_path / "out"))
    assert prepare("folder", source, tmp_path / "out", *more) == READY
    assert tree(tmp_path / "out") == again
    assert prepare("folder", source, tmp_path / "out", "--rawframes") == INCOMPLETE  # other options: not mixed


def test_flow_levels_are_the_fields():
    levels = flow_levels(np.array([-BOUND - 5, -BOUND, 0, BOUND / 2, BOUND, 99.0]))
    assert levels.tolist() == [0, 0, 128, 191, 255, 255]


def test_flow_says_where_things_move(tmp_path):
    (tmp_path / "src" / "a").mkdir(parents=True)
    write_video(tmp_path / "src" / "a" / "right.avi", 3, (2, 0))
    shutil.copyfile(str(tmp_path / "src/a/right.avi"), str(tmp_path / "src/a/other.avi"))
    prepare("folder", tmp_path / "src", tmp_path / "out", "--flow", "--quality", "100")
    x, y = (cv2.imread(str(tmp_path / "out/rawframes/a/right" / name), cv2.IMREAD_GRAYSCALE).astype(float) - 127.5
            for name in ("flow_x_00003.jpg", "flow_y_00003.jpg"))
    assert abs(x).mean() > 3 * abs(y).mean()


def test_errors_name_the_remedy(tmp_path, films, capsys):
    assert prepare("UCF101", tmp_path / "nowhere", tmp_path / "out") == INCOMPLETE
    assert "nothing is there" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert prepare("UCF101", tmp_path / "empty", tmp_path / "out") == INCOMPLETE
    assert "no video in it" in capsys.readouterr().err
    assert prepare("motion10", tmp_path / "empty", tmp_path / "out") == INCOMPLETE
    assert "rendered" in capsys.readouterr().err
    assert prepare("folder", as_folder(tmp_path / "flat", {"a.avi": films[0]}), tmp_path / "out") == INCOMPLETE
    assert "name of the folder" in capsys.readouterr().err
    assert json.dumps(sorted(os.listdir(str(tmp_path / "out")))) == "[]"
