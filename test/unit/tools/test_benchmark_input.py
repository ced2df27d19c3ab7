"""The input benchmark: rows for scripts, the same clips for floor and pipeline, films of its own and of the user's."""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from data.clip_dataset import ClipDataset
from data.transforms import EvalTransform, TrainAugmentation
from dataset.frames import FrameTask, write_frames
from tools import benchmark, benchmark_films, benchmark_input, benchmark_soak, timing

FILMS = Path(__file__).resolve().parents[1] / "films"
SMALL = ["--data", str(FILMS), "--films", "2", "--clips", "4", "--rounds", "1"]


@pytest.fixture
def short_films(monkeypatch):
    monkeypatch.setattr(benchmark_films, "FRAMES", 12)


def test_rows_for_scripts(tmp_path, capsys):
    rows_file, names = tmp_path / "rows.json", [case.name for case in benchmark_input.CASES]
    assert benchmark.main(["input", *SMALL, "--json", str(rows_file)]) == 0
    rows = json.loads(rows_file.read_text())
    if len(benchmark_input.AVAILABLE) < 2:
        names.remove("workers_2")
    if benchmark_films.av is None:
        names.remove("reencoded_train")
    assert [row["case"] for row in rows] == names
    assert all(set(row) == {"case", "clips_per_second", "ratio", "of"} for row in rows)
    assert {row["case"]: row["of"] for row in rows}["rawframes_train"] == "jpeg_floor"
    assert {row["of"] for row in rows} <= {"floor", "jpeg_floor", "workers_1"}
    assert all(row["clips_per_second"] > 0 and row["ratio"] > 0 for row in rows)
    out = capsys.readouterr().out
    assert "films of 64x48, 30 frames" in out and "| video_eval |" in out
    if hasattr(os, "sched_getaffinity"):
        assert sorted(os.sched_getaffinity(0)) == benchmark_input.AVAILABLE


@pytest.mark.parametrize("training", [True, False])
def test_the_floor_decodes_the_loaders_clips(training, monkeypatch):
    videos = benchmark_input.video_source([str(FILMS / "mjpeg.avi"), str(FILMS / "h264_b.mp4")], "")
    transform = TrainAugmentation(16, (16, 24)) if training else EvalTransform(16, 20)
    monkeypatch.setattr(benchmark_input, "TrainAugmentation", lambda: transform)
    monkeypatch.setattr(benchmark_input, "EvalTransform", lambda: transform)
    read, drawn = [], ClipDataset._open

    def watched(dataset, row):
        reader = drawn(dataset, row)
        of_reader = reader.read
        monkeypatch.setattr(reader, "read", lambda indices, *more: read.append((reader.path, list(indices)))
                            or of_reader(indices, *more), raising=False)
        return reader
    monkeypatch.setattr(ClipDataset, "_open", watched)
    case = benchmark_input.CASES[0]._replace(training=training, workers=0)
    run, passes = benchmark_input.loader_pass(case, videos, 8), benchmark_input.wanted(videos, 8, training)
    for _ in range(2):
        read.clear()
        run()
        assert len(read) == 8 and read == [(path, list(indices)) for path, indices in next(passes)]
    benchmark_input.pin(len(benchmark_input.AVAILABLE))


@pytest.mark.parametrize("argv", [["--cases", "fly"], ["--clips", "3"], ["--rounds", "0"], ["--b-frames", "-1"],
                                  ["--data", "/nowhere"]])
def test_what_is_wrong_is_said(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["input", *argv])
    assert stop.value.code == 2 and argv[0] in capsys.readouterr().err


@pytest.mark.parametrize("writer", ["pyav", "opencv"])
def test_films_are_made_as_the_head_says(writer, short_films, tmp_path, monkeypatch):
    if writer == "opencv":
        monkeypatch.setattr(benchmark_films, "av", None)
        with pytest.raises(ValueError, match="--b-frames 2"):
            benchmark_films.write_film(str(tmp_path / "b.avi"), 0, 2)
    elif benchmark_films.av is None:
        pytest.skip("PyAV is not installed")
    path = str(tmp_path / "film.avi")
    benchmark_films.write_film(path, 3, 0)
    words = benchmark_films.coding(path)
    assert words.startswith("320x240, 12 frames, ") and words.endswith("one key frame, 0 % B-frames")
    assert write_frames(FrameTask(path, str(tmp_path / "frames"), True, "", 95, 0)) == ""
    assert len(list((tmp_path / "frames").iterdir())) == 12
    frames = list(benchmark_films.scene(3))
    assert np.abs(cv2.imread(str(tmp_path / "frames" / "img_00001.jpg")).astype(int) - frames[0]).mean() < 12
    assert not np.array_equal(frames[0], frames[11])


def test_the_coding_of_films_with_b_frames():
    assert "one key frame, 6" in benchmark_films.coding(str(FILMS / "mpeg4_plain_b.avi"))
    assert "a key frame every 12, 0 % B-frames" in benchmark_films.coding(str(FILMS / "mpeg4_gop12.avi"))


def test_a_folder_without_films_is_refused(tmp_path):
    (tmp_path / "a.avi").write_text("text")
    with pytest.raises(ValueError, match="no readable video file"):
        benchmark_films.find_films(str(tmp_path), 3)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at processes through /proc")
def test_a_soak(tmp_path, capsys):
    rows_file = tmp_path / "rows.json"
    assert benchmark.main(["input", *SMALL, "--soak", "48", "--json", str(rows_file)]) == 0
    row, = json.loads(rows_file.read_text())
    assert row["case"] == "soak" and row["clips"] == 48 and row["resident_mib"] > 10 and row["open_files"] > 3
    assert "48 clips in 3 epochs" in capsys.readouterr().out


@pytest.mark.skipif(not os.path.isfile("/proc/self/schedstat"), reason="Linux counts it in /proc")
def test_processor_time_does_not_pass_in_sleep(capsys):
    seconds = timing.interleave({"sleep": lambda: time.sleep(0.2), "work": lambda: sum(range(3000000))}, 1,
                                clock=timing.processor_seconds)
    assert seconds["sleep"][0] < 0.1 and seconds["work"][0] > 0.01
    assert benchmark.main(["input", *SMALL, "--processor-time", "--cases", "video_train"]) == 0
    assert "| video_train |" in capsys.readouterr().out


def test_growth_is_the_rise_over_the_run():
    assert benchmark_soak.growth([10, 11, 12]) == pytest.approx(2 / 11)
    assert benchmark_soak.growth([5, 5, 5]) == pytest.approx(0) and benchmark_soak.growth([5]) == 0


def test_ratios_are_of_paired_rounds():
    assert timing.paired_ratio([2, 4, 8], [1, 2, 2]) == 2
    assert timing.markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
