"""The tools: tables, JSON for scripts, one frame against the whole clip, words for what the user can mend."""

import json

import pytest
import torch
from small_network import small_network

from network import build_network
from tools import benchmark, one_frame, timing


@pytest.fixture
def small():
    with small_network() as name:
        yield name


@pytest.mark.parametrize("what", ["step", "infer"])
def test_benchmark_interleaves_variants_and_writes_rows(what, tmp_path, capsys):
    rows_file = tmp_path / "rows.json"
    assert (
        benchmark.main(
            [what, "--device", "cpu", "--batch-size", "2", "--clip-length", "2", "--crop-size", "32", "--rounds", "2",
             "--variants", "O3,auto,reference", "--network", "RESNET50_3D", "--json", str(rows_file)]
        )
        == 0
    )
    rows = json.loads(rows_file.read_text())
    assert [row["variant"] for row in rows] == ["reference", "auto", "O3"]
    assert all(row["peak_memory_bytes"] is None or row["peak_memory_bytes"] >= 0 for row in rows)
    assert rows[0]["ratio"] == 1.0 and all(row["clips_per_second"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "| reference |" in printed and "GFLOP a clip" in printed


def test_ratio_is_of_paired_rounds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def taking(seconds):
        times = iter([0.0] * benchmark.WARMUP_STEPS + seconds)

        def run():
            clock[0] += next(times)

        return lambda: run

    setup = benchmark.Setup("x", 6, 2, 32, torch.device("cpu"))
    rows = benchmark.measure({"reference": taking([2, 4, 8]), "O2": taking([1, 2, 2])}, setup, 3)
    assert [row["ratio"] for row in rows] == [1.0, 2.0]
    assert [row["clips_per_second"] for row in rows] == [1.5, 3.0]


@pytest.mark.parametrize("argv", [["step", "--variants", "O9"], ["step", "--batch-size", "0"], ["fly"]])
def test_benchmark_refuses(argv):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(argv)
    assert stop.value.code == 2


def test_one_frame_evaluates_every_place_of_the_clip(tiny_videos, tmp_path, monkeypatch, small):
    torch.manual_seed(0)
    weights = tmp_path / "w.pth"
    torch.save(build_network(small, 3).state_dict(), str(weights))
    spec = one_frame.find_dataset("folder")._replace(
        defaults={"crop_size": 32, "clip_length": 2, "val_frame_interval": 5})
    monkeypatch.setattr(one_frame, "find_dataset", lambda name: spec)
    rows_file = tmp_path / "rows.json"
    assert (
        one_frame.main(
            [str(weights), "--network", small, "--data-root", str(tiny_videos), "--device", "cpu", "--workers",
             "0", "--json", str(rows_file)]
        )
        == 0
    )
    rows = json.loads(rows_file.read_text())
    assert [row["frames"] for row in rows] == ["all", 0, 1]
    assert all(row["num_videos"] == 9 for row in rows)


def test_one_frame_says_what_is_missing(tmp_path, capsys):
    assert one_frame.main([str(tmp_path / "none.pth"), "--dataset", "folder", "--data-root", str(tmp_path)]) == 2
    assert "none.pth: no such file" in capsys.readouterr().err
