"""Lines, metrics.jsonl, the curves' picture, the table, speed in steady state."""

import json
import time

import cv2
import torch

from train.curves import draw_curves
from train.log import Scalars, read_metrics
from train.record import table_lines
from train.speed import SpeedMeter


def test_scalars_are_lines_of_json_and_tensorboard_events(tmp_path):
    scalars = Scalars(tmp_path, True)
    scalars.write("train", 50, {"loss": 1.5, "note": "x"})
    scalars.write("epoch", 60, {"val_top1": 0.5})
    scalars.close()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == [{"kind": "train", "step": 50, "loss": 1.5, "note": "x"},
                    {"kind": "epoch", "step": 60, "val_top1": 0.5}]
    assert any(p.name.startswith("events.out") for p in (tmp_path / "tensorboard").iterdir())


def test_other_ranks_write_nothing(tmp_path):
    scalars = Scalars(tmp_path / "run", False)
    scalars.write("train", 1, {"loss": 1.0})
    scalars.close()
    assert not (tmp_path / "run").exists()


def test_a_line_torn_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1, "loss": 2.0}\n{"kind": "tra')
    assert [row["step"] for row in read_metrics(path)] == [1]
    assert list(read_metrics(tmp_path / "none")) == []


def test_the_picture_is_drawn_from_the_lines(tmp_path):
    scalars = Scalars(tmp_path, True)
    for step in (50, 100):
        scalars.write("train", step, {"loss": 100.0 / step, "lr": 0.1, "fps": 10.0, "top1": 0.2})
        scalars.write("epoch", step, {"val_loss": 2.0, "val_top1": 0.3, "val_top5": 0.7})
    scalars.close()
    assert draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", "t")
    empty = tmp_path / "empty.png"
    draw_curves(tmp_path / "none.jsonl", empty, "t")
    pictures = [cv2.imread(str(path)) for path in (tmp_path / "curves.png", empty)]
    coloured = [int((picture.max(2).astype(int) - picture.min(2) > 60).sum()) for picture in pictures]
    assert coloured[0] > coloured[1] + 500


def test_the_table_has_the_published_heads():
    lines = table_lines({"name": "1p-CPU", "accuracy_top1": 92.391, "fps": 11.6474, "epochs": 90, "amp_type": "O2"})
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["NAME", "ACC@1", "FPS", "Epochs", "AMP_Type"]
    assert [cell.strip() for cell in lines[2].strip("|").split("|")] == ["1p-CPU", "92.39", "11.647", "90", "O2"]
    assert len({len(line) for line in lines}) == 1
    assert "| - " in table_lines({"name": "x", "accuracy_top1": None, "fps": None, "epochs": 0, "amp_type": "O0"})[2]


def test_speed_leaves_out_the_first_steps_and_the_pauses(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    meter = SpeedMeter(torch.device("cpu"), clips_per_step=4, skip_steps=2)
    meter.begin()
    for seconds, waited in ((10, 5), (10, 5), (1, 0.25), (1, 0.25)):
        clock[0] += seconds
        meter.step(waited)
    assert meter.interval() == (4.0, 0.25)
    meter.pause()
    clock[0] += 100  # an evaluation
    meter.begin()
    clock[0] += 2
    meter.step(1)
    assert meter.interval() == (2.0, 0.5)
    assert meter.total() == (3.0, 0.375)


def test_a_run_shorter_than_the_warm_up_still_has_a_speed():
    meter = SpeedMeter(torch.device("cpu"), 4)
    meter.begin()
    time.sleep(0.01)
    meter.step(0)
    meter.pause()
    assert meter.total().clips_per_second > 0
