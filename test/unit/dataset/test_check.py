"""dataset.check on real films: what it prints, writes and returns; and training with the index it leaves."""
import base64
import json
import os
import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from film_numbers import FILMS, decode_all, write_frames
from film_sets import damaged, film_set, stop_when

from data.device_transforms import normalize
from data.streams import ClipGeometry, ClipStreams, Share
from dataset import indexing
from dataset.check import SOUND, UNSOUND, expected_counts, main
from dataset.contact_sheet import seen_by_network
from dataset.index import index_path, read_index
from dataset.indexing import IndexInUse, update_index
from dataset.progress import INTERRUPTED, USER_ERROR
from dataset.specs import find_dataset, load_videos


def run(root, *arguments):
    """(exit code, report)."""
    path = str(root / "report.json")
    code = main(["folder", "--data-root", str(root), "--workers", "2", "--json", path] + list(arguments))
    with open(path) as file:
        return code, json.load(file)


def lines_of(root):
    with open(index_path(str(root)), "rb") as file:
        return file.read().splitlines()


def test_a_sound_set(tmp_path, capsys):
    code, report = run(film_set(tmp_path))
    assert code == SOUND and report["sound"] is True
    assert all(report[kind] == [] for kind in ("broken", "short", "duplicated", "missing", "in_both_splits"))
    assert (report["dataset"], report["num_train"], report["num_test"]) == ("folder", 3, 2)
    assert report["data_root"] == str(tmp_path) and report["index"] == index_path(str(tmp_path))
    said = capsys.readouterr()
    assert "in both splits: none\nleaking groups: none\ntrain: 3 videos; a class has 1 (a) to 2 (b)" in said.out
    assert said.out.endswith("index: %s\nsound\n" % report["index"])
    assert report["classes"] == {"a": {"train": 1, "test": 1}, "b": {"train": 2, "test": 1}}
    assert "5 of 5 examined" in said.err
    records = {record.path: record.facts.num_frames for record in read_index(report["index"])}
    assert records == {"train/a/one.avi": 72, "train/b/two.avi": 70, "train/b/three.avi": 72, "test/a/four.mp4": 72,
                       "test/b/five.avi": 72}


def test_each_kind_of_fault(tmp_path, capsys):
    root = film_set(tmp_path)
    shutil.copyfile(str(FILMS / "mjpeg.avi"), str(root / "train/a/leak.avi"))
    shutil.copyfile(str(FILMS / "mpeg4_gop12.avi"), str(root / "train/a/again.avi"))
    (root / "train/a/text.avi").write_text("no film")
    damaged("xvid_no_b.avi", root / "train/a/cut.avi", 20000, None)
    (root / "train/a/gone.avi").symlink_to("/nowhere/at/all")
    code, report = run(root)
    assert code == UNSOUND and report["sound"] is False
    assert [one["path"] for one in report["broken"]] == ["train/a/cut.avi", "train/a/gone.avi", "train/a/text.avi"]
    assert [one["num_frames"] > 0 for one in report["broken"]] == [True, False, False]
    assert [one["path"] for one in report["short"]] == ["train/a/cut.avi"]
    assert report["num_frames_of_a_clip"] == 57
    assert report["duplicated"] == [["train/a/again.avi", "train/b/three.avi"]]
    assert report["in_both_splits"] == [{"train": ["train/a/leak.avi"], "test": ["test/b/five.avi"]}]
    out = capsys.readouterr().out
    assert "  train/a/text.avi: not a video file" in out and "(nothing can be used)" in out
    assert out.endswith("not sound: broken, duplicated, in both splits\n")
    assert run(root, "--clip-length", "3")[1]["short"] == []


def test_rows_of_lists(tmp_path):
    root = film_set(tmp_path)
    shutil.move(str(root / "train"), str(root / "videos"))
    (root / "classes.txt").write_text("a\nb\n")
    (root / "train.txt").write_text("a/one.avi 0\nb/two.avi 1\na/lost.avi 0\nb/two.avi 1\n")
    (root / "test.txt").write_text("b/three.avi 1\na/one.avi 0\n")
    code, report = run(root)
    assert code == UNSOUND
    assert report["missing"] == [{"part": "train", "path": "videos/a/lost.avi"}]
    assert report["duplicated"] == [["videos/b/two.avi", "videos/b/two.avi"]]
    assert report["in_both_splits"] == [{"train": ["videos/a/one.avi"], "test": ["videos/a/one.avi"]}]


def test_raw_frames(tmp_path):
    frames = decode_all(FILMS / "mjpeg.avi")
    for number, place in enumerate(("train/a/one", "train/b/two", "test/a/three", "test/b/four")):
        write_frames(tmp_path / "rawframes" / place, frames[number:number + 9])
    code, report = run(tmp_path)
    assert code == SOUND and report["source"] == "rawframes" and len(report["short"]) == 4
    (tmp_path / "rawframes" / "test" / "b" / "four" / "img_00005.jpg").unlink()
    code, report = run(tmp_path)
    assert code == UNSOUND and len(lines_of(tmp_path)) == 5
    assert report["broken"] == [{"path": "rawframes/test/b/four", "num_frames": 4,
                                 "reason": "8 frames, but number 5 is missing"}]


def test_what_cannot_be_checked(tmp_path, capsys):
    assert main(["folder", "--data-root", str(tmp_path)]) == USER_ERROR
    assert main(["nothing"]) == USER_ERROR
    assert main(["folder", "--data-root", str(film_set(tmp_path)), "--split", "2"]) == USER_ERROR
    assert "error: --split 2" in capsys.readouterr().err


def test_only_what_changed_is_examined_again(tmp_path, monkeypatch):
    root = film_set(tmp_path)
    run(root)
    before = lines_of(root)
    run(root)
    assert lines_of(root) == before
    os.utime(str(root / "train/a/one.avi"), ns=(1, 1))
    shutil.copyfile(str(FILMS / "mpeg4_plain_b.avi"), str(root / "train/b/two.avi"))
    run(root)
    assert lines_of(root)[:5] == before and len(lines_of(root)) == 7
    monkeypatch.setattr(indexing.cv2, "__version__", "another")
    run(root)
    assert len(lines_of(root)) == 12


def test_a_damaged_index_is_mended(tmp_path):
    root = film_set(tmp_path)
    run(root)
    path = index_path(str(root))
    whole = {record.path: record for record in read_index(path)}
    data = Path(path).read_bytes()
    for broken in (data[:-30], data.replace(b'"num_frames": 72', b'"num_frames": 99', 2), bytes(1000), b"\n[1,", b"",
                   b"\x80\x04" + data[50:]):
        Path(path).write_bytes(broken)
        videos = load_videos(find_dataset("folder"), str(root))
        assert sum(part.num_known for part in (videos.train, videos.test)) < 5
        assert any("python -m dataset.check" in note for note in videos.notes)
        assert run(root)[0] == SOUND
        assert {record.path: record for record in read_index(path) if record} == whole
        videos = load_videos(find_dataset("folder"), str(root))
        assert (videos.train.num_known, videos.test.num_known) == (3, 2)
        assert videos.train.facts(0) == whole["train/a/one.avi"].facts


def test_two_writers(tmp_path):
    root = film_set(tmp_path)
    first = update_index(str(root), [("train/a/one.avi", "video"), ("train/b/two.avi", "video")], 1)
    next(first)
    with pytest.raises(IndexInUse, match="another command is writing"):
        next(update_index(str(root), [("train/a/one.avi", "video")], 1))
    assert main(["folder", "--data-root", str(root)]) == USER_ERROR
    assert len(list(first)) == 1
    assert len(list(update_index(str(root), [("train/a/one.avi", "video")], 1))) == 1


@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -9), (signal.SIGINT, INTERRUPTED)])
def test_a_stop_loses_only_what_was_in_work(tmp_path, how, code, monkeypatch, capfd):
    root = film_set(tmp_path)
    examine = indexing.examine
    monkeypatch.setattr(indexing, "examine", lambda *arguments: time.sleep(0.25) or examine(*arguments))
    assert stop_when(lambda: os.path.isfile(index_path(str(root))) and lines_of(root),
                     lambda: main(["folder", "--data-root", str(root), "--workers", "1"]), how) == code
    monkeypatch.undo()
    assert "goes on" in capfd.readouterr().err or how == signal.SIGKILL
    before = lines_of(root)
    assert run(root)[0] == SOUND and lines_of(root)[:len(before)] == before and len(lines_of(root)) == 5
    assert 1 <= len(before) < 5


def test_clips_are_the_same_with_and_without_the_index(tmp_path):
    root = film_set(tmp_path)

    def batches():
        videos = load_videos(find_dataset("folder"), str(root))
        geometry = ClipGeometry(8, 8, 8, 32, (32, 40), 36)
        streams = ClipStreams(videos.train, videos.test, geometry, Share(0, 1, 3, 2, 0, False), 7)
        return videos, [batch for epoch in range(3) for batch in streams.training(epoch, 0, 1)] + list(
            streams.evaluation())
    without, plain = batches()
    run(root)
    using, indexed = batches()
    assert without.train.num_known == 0 and using.train.num_known == 3
    assert any(note.endswith("knows 3 of 3 training videos") for note in using.notes)
    assert len(plain) == len(indexed) == 4
    for one, other in zip(plain, indexed):
        for field, value in one._asdict().items():
            assert torch.equal(value, getattr(other, field)) if torch.is_tensor(value) else (
                value == getattr(other, field))
    assert np.ptp(plain[0].clip.numpy()) > 100


def test_groups_in_both_splits_are_a_fault(tmp_path):
    root = film_set(tmp_path)
    for name, film in (("train/a/v_a_g01_c01.avi", "mjpeg.avi"), ("test/a/v_a_g01_c02.avi", "mpeg4_gop12.avi"),
                       ("train/b/abcdefghijk_000001_000011.avi", "xvid_no_b.avi")):
        shutil.copyfile(str(FILMS / film), str(root / name))
    code, report = run(root)
    assert code == UNSOUND
    assert report["leaking_groups"] == [{"train": ["train/a/v_a_g01_c01.avi"], "test": ["test/a/v_a_g01_c02.avi"]}]


@pytest.mark.parametrize("name, split, counts", [("UCF101", 1, (9537, 3783)), ("UCF101", 2, (9586, 3734)),
                                                 ("HMDB51", 3, (3570, 1530)), ("folder", 1, (0, 0)),
                                                 ("motion10", 1, (900, 350))])
def test_published_counts(name, split, counts):
    assert expected_counts(find_dataset(name), split) == counts


def test_the_sheet_shows_clips_of_every_class(tmp_path):
    root = film_set(tmp_path)
    page = tmp_path / "sheet.html"
    options = ["--clip-length", "4", "--train-frame-interval", "5", "--sheet", str(page), "--sheet-clips", "3"]
    assert run(root, *options)[0] == SOUND
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 3 and "<b>a</b>" in text and "<b>b</b>" in text and "http" not in text
    data = base64.b64decode(text.split("base64,")[1].split('"')[0])
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (224, 4 * 224, 3)
    before = text
    run(root, *options)
    assert page.read_text(encoding="utf-8") == before


def test_a_picture_of_a_clip_undoes_the_normalisation():
    levels = np.random.RandomState(0).randint(0, 256, (3, 2, 4, 5)).astype(np.float32)
    clip = normalize(torch.from_numpy(levels)[None])[0].numpy()
    picture = seen_by_network(clip)
    assert picture.shape == (4, 10, 3) and np.array_equal(picture[:, 5:].transpose(2, 0, 1), levels[:, 1])
