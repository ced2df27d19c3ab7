"""tools.predict where things are odd: names, lists, films, weights; stopped half-way; what it draws of them."""
import io
import json
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import CLASSES, write_video
from film_numbers import FILMS
from small_network import NAME, small_network

from data.clip_readers import VideoFile
from network import build_network
from tools import annotate, predict
from tools.items import find_items
from tools.predictor import Window, open_predictor
from tools.timeline import draw_timeline

SMALL = ["--device", "cpu", "--workers", "0"]


def save(path, change=lambda network: None):
    """A checkpoint of the small network with random weights."""
    torch.manual_seed(1)
    network = build_network(NAME, 3)
    change(network)
    torch.save({"state_dict": network.state_dict(), "class_names": list(CLASSES),
                "config": {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32}}, str(path))
    return str(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with small_network():
        yield save(tmp_path_factory.mktemp("weights") / "w.pth")


ODD = ["-dash.avi", "two\nlines.avi", "100%d.avi", "a[1].avi", "投篮 .avi", "$x$.AVI"]


def test_odd_names_are_videos_like_others(checkpoint, tmp_path, capsys):
    write_video(tmp_path / "a.avi", 1)
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ODD:
        shutil.copy(str(tmp_path / "a.avi"), str(folder / name))
    (folder / "link.avi").symlink_to(str(folder / ODD[0]))
    answers = tmp_path / "answers.json"
    words = [str(folder), str(folder / "a[1].avi"), "--json", str(answers), "--annotate", str(tmp_path / "p")] + SMALL
    assert predict.main([checkpoint] + words) == 0
    rows = json.loads(answers.read_text())
    assert [os.path.basename(row["path"]) for row in rows] == sorted(ODD + ["link.avi"]) + ["a[1].avi"]
    assert all(row["top"] == rows[0]["top"] for row in rows)
    assert len(os.listdir(str(tmp_path / "p"))) == 8 and (tmp_path / "p" / "a[1]-2.mp4").is_file()
    said = capsys.readouterr()
    assert "two\\nlines.avi  " in said.out and said.out.count("\n") == 8 and "p/two\\nlines.mp4\n" in said.err


def test_lists_of_names_with_lines_in_them_are_cut_at_zero_bytes():
    paths = ["a\nb.avi", "c.avi"]
    assert [item.path for item in find_items(["-"], ["a\n", "b.avi\0c.avi\0"])] == paths
    assert [item.path for item in find_items(["-"], ["c.avi\r\n", "\n", "d.avi"])] == ["c.avi", "d.avi"]


def test_names_on_standard_input_need_not_be_text(checkpoint, tmp_path, monkeypatch, capsys):
    data = os.fsencode(str(tmp_path)) + b"/\xff.avi\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    assert predict.main([checkpoint, "-", "--json", "-"] + SMALL) == 0
    row, = json.loads(capsys.readouterr().out)
    assert row["path"].endswith("/\udcff.avi") and "UTF-8" in row["error"]


def test_weights_that_are_no_numbers_are_an_error(checkpoint, tmp_path, capsys):
    broken = save(tmp_path / "nan.pth", lambda network: network.classifier.weight.data.fill_(float("nan")))
    write_video(tmp_path / "a.avi", 1)
    for more in ([], ["--stride", "1"]):
        assert predict.main([broken, str(tmp_path / "a.avi")] + SMALL + more) == 2
        assert "outputs are no numbers" in capsys.readouterr().err


def test_a_film_of_changing_rate_is_timed_as_it_says(checkpoint, tmp_path):
    path = FILMS / "changing_rate.mkv"
    _, windows = open_predictor(checkpoint, "cpu").over_time(str(path))
    assert [(round(w.start, 3), round(w.end, 3)) for w in windows] == [
        (0, 0.94), (0.5, 1.28), (1.0, 1.38), (1.26, 1.48), (1.36, 1.58)]
    turns = []

    def drawn(picture, top):
        turns.append(top)
        return picture

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(annotate, "caption_picture", drawn)
        annotate.annotate(str(path), "video", str(tmp_path), [annotate.Caption(t, t) for t in (0.0, 1.19, 1.5)], 25.0)
    assert turns == [0.0] * 12 + [1.19] * 15 + [1.5] * 3


def rotated(path):
    """The film of 128 x 96 pixels, with a track that says that it is to be turned by a quarter, as phones write it."""
    data = (FILMS / "h264_b.mp4").read_bytes()
    one = (1 << 16).to_bytes(4, "big")
    straight = one + bytes(12) + one + bytes(12) + b"\x40\0\0\0"
    place = data.index(straight, data.index(b"tkhd"))
    turned = bytes(4) + one + bytes(4) + b"\xff\xff\0\0" + bytes(8) + (96 << 16).to_bytes(4, "big") + bytes(4)
    path.write_bytes(data[:place] + turned + b"\x40\0\0\0" + data[place + len(straight):])
    return str(path)


def test_a_phones_film_is_upright(checkpoint, tmp_path):
    path = rotated(tmp_path / "phone.mp4")
    frame = VideoFile(path).read([5])[0]
    plain = VideoFile(str(FILMS / "h264_b.mp4")).read([5])[0]
    assert frame.shape == (128, 96, 3) and np.array_equal(frame, np.rot90(plain, -1))
    assert predict.main([checkpoint, path, "--annotate", str(tmp_path / "out")] + SMALL) == 0
    assert VideoFile(str(tmp_path / "out" / "phone.mp4")).read([5])[0].shape == (2 * 128, 2 * 96, 3)


@pytest.mark.parametrize("frames, size", [(1, 48), (2, 8)])
def test_a_video_of_a_frame_or_two_is_one_window(checkpoint, tmp_path, frames, size):
    write_video(tmp_path / "a.avi", 1, frames=frames, size=size)
    words = [checkpoint, str(tmp_path / "a.avi"), "--timeline", str(tmp_path / "p"), "--annotate", str(tmp_path / "p"),
             "--json", str(tmp_path / "w.jsonl")]
    assert predict.main(words + SMALL) == 0
    row, = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text().splitlines()]
    assert (row["start"], row["end"]) == (0, frames / 25) and len(os.listdir(str(tmp_path / "p"))) == 2


def test_stopped_half_way_no_half_file_stays(checkpoint, tmp_path, monkeypatch, capsys):
    for name in ("a.avi", "b.avi"):
        write_video(tmp_path / name, 1)
    drawn = []

    def stop(picture, top):
        if len(drawn) == 30:  # of twenty frames each
            raise KeyboardInterrupt
        drawn.append(top)
        return picture

    monkeypatch.setattr(annotate, "caption_picture", stop)
    out = tmp_path / "out"
    words = [str(tmp_path / "*.avi"), "--annotate", str(out), "--batch-size", "1", "--json", str(tmp_path / "a.json")]
    assert predict.main([checkpoint] + words + SMALL) == 130
    assert [path.name[:2] for path in out.iterdir()] == ["a."] and not (tmp_path / "a.json").exists()
    said = capsys.readouterr()
    assert "a.avi  " in said.out and "interrupted" in said.err and "Traceback" not in said.err


def test_a_copy_that_is_not_whole_is_an_error_and_goes(checkpoint, tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "a.avi", 1)
    open_writer = annotate._open_writer

    class FullDisk:
        def __init__(self, *args):
            self.writer, self.path = open_writer(*args)
            self.write = self.writer.write

        def release(self):  # OpenCV says nothing
            self.writer.release()
            os.truncate(self.path, os.path.getsize(self.path) // 2)

    def opened(*args):
        writer = FullDisk(*args)
        return writer, writer.path

    monkeypatch.setattr(annotate, "_open_writer", opened)
    assert predict.main([checkpoint, str(tmp_path / "a.avi"), "--annotate", str(tmp_path / "out")] + SMALL) == 2
    assert "see that the disk has room" in capsys.readouterr().err and not os.listdir(str(tmp_path / "out"))


def test_a_strip_of_pixels_is_not_blown_up_beyond_use():
    class Strip:
        num_frames = 1

        def read_each(self, wanted):
            return [np.zeros((2, 900, 3), np.uint8)]

    assert [picture.shape for picture in annotate._pictures(Strip())] == [(4, 1800, 3)]


@pytest.mark.parametrize("height, width", [(400, 96), (240, 320), (200, 1000)])
def test_captions_fit_the_picture(height, width):
    top = [{"class": "a class with a name as long as a sentence", "probability": 0.02}]
    picture = annotate.caption_picture(np.zeros((height, width, 3), np.uint8), top)
    columns = np.flatnonzero((picture.min(2) > 150).any(0))  # white
    assert len(columns) and width // 4 < columns[-1] < width - 2


def test_names_of_classes_are_no_formulas_in_a_timeline(tmp_path):
    names = ["_background", "a$x_$b", "$\\frac$", "two\nlines", "plain"]
    windows = [Window(start, start + 1, np.eye(5)[start]) for start in range(5)]
    assert draw_timeline(str(tmp_path / "t.png"), "$a$_^.mp4", names, windows)
    assert os.listdir(str(tmp_path)) == ["t.png"]
