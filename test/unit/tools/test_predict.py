"""tools.predict: the evaluation's answers for files, folders, patterns and lists; over time; pictures; torch.hub."""
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CLASSES, write_video
from film_numbers import FILMS, decode_all, write_frames
from small_network import NAME, small_network

import hubconf
from data.clip_readers import VideoFile
from data.device_transforms import normalize
from network import NETWORKS, build_network
from tools import evaluate, predict
from tools.items import Item, find_items
from tools.predictor import open_predictor
from tools.running import Views
from tools.scores import read_scores
from tools.timeline import extents, shown_classes

ROOT = Path(__file__).resolve().parents[3]
GEOMETRY = {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of the small network with random weights."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    with small_network():
        torch.manual_seed(1)
        network = build_network(NAME, 3)
        torch.nn.init.normal_(network.classifier.weight, std=3)
        for _ in range(3):
            network(torch.randn(4, 3, 4, 32, 32))  # statistics
        torch.save({"state_dict": network.state_dict(), "class_names": list(CLASSES), "config": GEOMETRY}, str(path))
        yield str(path)


def predicted(tmp_path, *words, code=0):
    path = tmp_path / "answers.json"
    assert predict.main([*words, "--json", str(path), "--device", "cpu", "--workers", "0"]) == code
    return json.loads(path.read_text())


def test_answers_are_those_of_the_evaluation(checkpoint, tiny_videos, tmp_path):
    scores = str(tmp_path / "s.npz")
    for views in ([], ["--views", "2x2"]):
        assert evaluate.main([checkpoint, "--dataset", "folder", "--data-root", str(tiny_videos), "--scores", scores,
                              "--device", "cpu", "--workers", "0", *views]) == 0
        rows = predicted(tmp_path, checkpoint, str(tiny_videos / "test"), "--top", "3", *views)
        expected = read_scores(scores)
        assert [row["path"] for row in rows] == [str(tiny_videos / "test" / path) for path in expected.paths]
        for row, probabilities in zip(rows, expected.scores):
            told = {answer["class"]: answer["probability"] for answer in row["top"]}
            assert [np.float32(told[name]) for name in CLASSES] == probabilities.tolist()
            assert sorted(told.values(), reverse=True) == list(told.values())
    assert np.ptp(expected.scores[:, 0]) > 0.01


def test_a_broken_file_is_an_entry_with_its_error(checkpoint, tmp_path, capsys):
    write_video(tmp_path / "a b.avi", 1)
    (tmp_path / "bad.avi").write_bytes(bytes(3000))
    rows = predicted(tmp_path, checkpoint, str(tmp_path / "*.avi"), "--top", "1")
    assert [sorted(row) for row in rows] == [["path", "top"], ["error", "path"]]
    assert rows[1]["path"].endswith("bad.avi") and "not a video file" in rows[1]["error"]
    assert len(rows[0]["top"]) == 1 and sorted(rows[0]["top"][0]) == ["class", "probability"]
    said = capsys.readouterr()
    assert "a b.avi  " in said.out and "1 of 2 videos cannot be read" in said.err


def test_a_list_on_standard_input(checkpoint, tmp_path, monkeypatch, capsys):
    write_video(tmp_path / "ä.avi", 1)
    monkeypatch.setattr("sys.stdin", io.StringIO("%s\n\n%s\n" % (tmp_path / "ä.avi", tmp_path / "none.avi")))
    assert predict.main([checkpoint, "-", "--json", "-", "--device", "cpu"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["path"].endswith("ä.avi") and len(rows[0]["top"]) == 3 and "No such file" in rows[1]["error"]


def test_what_words_mean(tmp_path):
    for name in ("b/two.AVI", "b/one.mp4", "a.mkv", "b/.hidden.avi", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    write_frames(tmp_path / "c", decode_all(FILMS / "mjpeg.avi")[:2])
    folder, videos = str(tmp_path), [str(tmp_path / name) for name in ("a.mkv", "b/one.mp4", "b/two.AVI")]
    frames = Item(str(tmp_path / "c"), "rawframes")
    assert find_items([folder], ()) == [Item(path, "video") for path in videos] + [frames]
    assert find_items([folder + "/*/*.mp4", folder + "/c", videos[0]], ()) == [
        Item(videos[1], "video"), frames, Item(videos[0], "video")]
    assert find_items(["-"], [videos[0] + "\n", "none\n"]) == [Item(videos[0], "video"), Item("none", "video")]
    (tmp_path / "b" / "up").symlink_to(str(tmp_path))
    assert len(find_items([folder], ())) == 4
    (tmp_path / "c" / "flow_x_00001.jpg").write_bytes(b"")
    assert find_items([folder], (), "flow") == [Item(str(tmp_path / "c"), "flow")]
    with pytest.raises(ValueError, match="optical flow"):
        find_items([videos[0]], (), "flow")


def test_folders_of_frames_answer_as_the_film_they_are_of(checkpoint, tmp_path):
    write_frames(tmp_path / "film", decode_all(FILMS / "mjpeg.avi")[:20])
    predictor = open_predictor(checkpoint, "cpu")
    write_video(tmp_path / "other.avi", 3)
    rows = predictor([str(tmp_path / "film"), str(tmp_path / "other.avi")])
    assert [Path(row["path"]).name for row in rows] == ["film", "other.avi"]
    assert predictor(str(tmp_path / "film")) == rows[0]


def test_over_time_is_the_answer_of_each_window(checkpoint, tmp_path, capsys):
    write_video(tmp_path / "long.avi", 5, (3, 1), frames=42)
    lines = tmp_path / "w.jsonl"
    assert predict.main([checkpoint, str(tmp_path / "long.avi"), "--stride", "0.24", "--json", str(lines), "--timeline",
                         str(tmp_path / "p"), "--batch-size", "4", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["start"] for row in rows] == [0, .24, .48, .72, .96, 1.2, 1.28] and rows[-1]["end"] == 1.68
    predictor = open_predictor(checkpoint, "cpu")
    whole = cv2.imread(str(tmp_path / "p" / "long.png"))
    assert whole is not None and whole.shape[1] > 600
    # the middle window of an evaluation's clip at the same frames
    frames = predict_frames(tmp_path / "long.avi", 12, predictor)
    told = {answer["class"]: answer["probability"] for answer in rows[2]["top"]}
    assert [told[name] for name in CLASSES] == pytest.approx(frames.tolist(), abs=1e-6)
    assert "0.48 to 0.88 s" in capsys.readouterr().out


def predict_frames(path, start, predictor):
    """The probabilities of one clip from a frame on, cut out as a film of its own."""
    clip = VideoFile(str(path)).read(range(start, start + 10, 3), predictor.runner.eval_transform(Views()).cut)
    with torch.no_grad():
        logits = predictor.trained.network(normalize(torch.from_numpy(clip).permute(3, 0, 1, 2)[None]))
    return logits[0].double().softmax(0).numpy()


def test_over_time_in_python(checkpoint, tmp_path):
    write_frames(tmp_path / "film", decode_all(FILMS / "mjpeg.avi")[:30])
    count, windows = open_predictor(checkpoint, "cpu").over_time(str(tmp_path / "film"), stride=0.5, rate=10)
    windows = list(windows)
    assert count == len(windows) == 5 and [window.start for window in windows] == [0, .5, 1, 1.5, 2]
    assert all(window.probabilities.sum() == pytest.approx(1) for window in windows)


def test_optical_flow_is_predicted_from_its_folder(checkpoint, tmp_path):
    path = str(tmp_path / "flow.pth")
    torch.save({"state_dict": build_network(NAME, 3, channels=2).state_dict(), "class_names": list(CLASSES),
                "config": GEOMETRY}, path)
    (tmp_path / "film").mkdir()
    for number in range(1, 13):
        for axis in "xy":
            name = "flow_%s_%05d.jpg" % (axis, number)
            cv2.imwrite(str(tmp_path / "film" / name), np.full((48, 64), 128, np.uint8))
    row, = predicted(tmp_path, path, str(tmp_path))
    assert row["path"] == str(tmp_path / "film") and len(row["top"]) == 3


def test_damage_within_a_long_video_comes_after_its_windows(checkpoint, tmp_path, capsys):
    write_video(tmp_path / "cut.avi", 5, frames=40)
    data = (tmp_path / "cut.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[:len(data) * 2 // 3])
    lines = tmp_path / "w.jsonl"
    words = [str(tmp_path / "cut.avi"), "--over-time", "--json", str(lines), "--device", "cpu"]
    assert predict.main([checkpoint, *words]) == 0
    assert all("top" in json.loads(line) for line in lines.read_text().splitlines())
    (tmp_path / "cut.avi").write_bytes(b"text")
    assert predict.main([checkpoint, *words]) == 0
    assert "not a video" in json.loads(lines.read_text())["error"]
    assert "1 of 1 videos cannot be read" in capsys.readouterr().err


def test_the_annotated_copy_has_every_frame_and_words_on_top(checkpoint, tmp_path):
    write_video(tmp_path / "a.avi", 5, frames=24)
    for _ in range(2):
        assert predict.main([checkpoint, str(tmp_path / "a.avi"), "--annotate", str(tmp_path / "out"), "--device",
                             "cpu"]) == 0
    first, second = sorted((tmp_path / "out").iterdir())
    assert first.stem == "a-2" and second.stem == "a"
    capture, plain = cv2.VideoCapture(str(first)), cv2.VideoCapture(str(tmp_path / "a.avi"))
    frames = 0
    while True:
        read, frame = capture.read()
        if not read:
            break
        frames += 1
        assert frame.shape[:2] == (240, 240)
        source = cv2.resize(plain.read()[1], (240, 240), interpolation=cv2.INTER_CUBIC).astype(int)
        assert np.abs(frame[120:].astype(int) - source[120:]).mean() < 25
        assert np.abs(frame[:60].astype(int) - source[:60]).mean() > 30
    assert frames == 24


def test_what_a_timeline_shows():
    scores = np.array([[.5, .4, .1, 0], [.1, .8, .1, 0], [.1, .7, .16, .04]])
    assert shown_classes(scores) == [1, 0, 2]
    windows = [predict.Window(start, start + 2, scores[0]) for start in (0, 1, 4)]
    assert extents(windows) == [(0, 1.5), (1.5, 3.5), (3.5, 6)]


@pytest.mark.parametrize("words, said", [
    (["{w}", "nowhere.avi"], "nowhere.avi"), (["{w}", "{tmp}"], "no video in this folder"),
    (["none.pth", "a"], "none.pth"),
    (["{w}", "*.nothing"], "*.nothing"), (["{w}", "a", "--top", "0"], "--top 0"),
    (["{w}", "a", "--over-time", "--views", "10x1"], "--views 10x1"), (["{w}", "a", "--json", "/no/a.json"], "--json"),
    (["{w}", "a", "--fps", "0"], "--fps"),
    (["{w}", "a", "--annotate", "{w}"], "--annotate"), (["{w}", "a", "--crop-size", "8"], "--crop-size")])
def test_what_the_user_can_mend_ends_with_code_2_and_a_word(words, said, checkpoint, tmp_path, capsys):
    assert predict.main([word.format(w=checkpoint, tmp=tmp_path) for word in words] + ["--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


@pytest.mark.skipif(not hasattr(torch.hub, "load_local") and not hasattr(torch.hub, "_load_local"),
                    reason="this torch.hub knows no local folders")
def test_torch_hub_opens_both(checkpoint, tmp_path):
    write_video(tmp_path / "a.avi", 1)
    predict = torch.hub.load(str(ROOT), "trained", Path(checkpoint), "cpu", source="local")
    answer = predict(tmp_path / "a.avi", top=1)
    assert answer["top"][0]["class"] in CLASSES and predict([tmp_path / "a.avi"], top=1) == [answer]
    assert predict.over_time(tmp_path / "a.avi")[0] == 3
    assert torch.hub.load(str(ROOT), NAME.lower(), num_classes=7, source="local").num_classes == 7


def test_a_programs_own_modules_of_the_same_names_are_named(tmp_path):
    (tmp_path / "data.py").write_text("")
    program = "import sys, data; sys.path[0] = sys.argv[1]; import hubconf"
    done = subprocess.run([sys.executable, "-c", program, str(ROOT)], cwd=str(tmp_path), stderr=subprocess.PIPE,
                          universal_newlines=True, timeout=60)
    assert done.returncode == 1 and "ImportError: another module 'data' is imported already" in done.stderr


def test_every_network_has_an_entry_point():
    assert {name.lower() for name in NETWORKS} < set(vars(hubconf)) and hubconf.trained
