"""The tools: tables, JSON for scripts, one frame against the whole clip, words for what the user can mend."""

import json
import time
from pathlib import Path

import pytest
import torch
from small_network import small_network

from network import build_network
from tools import benchmark, benchmark_compare, benchmark_step, one_frame, timing


@pytest.fixture
def small():
    with small_network() as name:
        yield name


@pytest.mark.parametrize("what", ["step", "infer"])
def test_benchmark_interleaves_variants_and_writes_rows(what, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tools.limits._SIDES", {"cpu": 64})
    monkeypatch.setattr("tools.limits._COPIED", {"cpu": 2 ** 20})
    rows_file = tmp_path / "rows.json"
    assert (
        benchmark.main(
            [what, "--device", "cpu", "--batch-size", "2", "--clip-length", "2", "--crop-size", "32", "--rounds", "2",
             "--variants", "O3", "--network", "RESNET50_3D", "--json", str(rows_file)]
        )
        == 0
    )
    rows = json.loads(rows_file.read_text())
    assert [row["variant"] for row in rows] == ["reference", "auto", "O3"]
    assert all(row["peak_memory_bytes"] is None or row["peak_memory_bytes"] >= 0 for row in rows)
    assert rows[0]["ratio"] == 1.0 and all(row["clips_per_second"] > 0 for row in rows)
    printed = capsys.readouterr().out
    assert "| reference |" in printed and "GFLOP and" in printed
    assert all(0 < row["product_share"] and row["flops_per_second"] > 0 for row in rows)
    assert [("byte_share" in row) for row in rows] == [what == "step"] * 3


def test_ratio_is_of_paired_rounds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def taking(seconds):
        times = iter([0.0] * benchmark_step.WARMUP_STEPS + seconds)

        def run():
            clock[0] += next(times)

        return lambda: run

    setup = benchmark_step.Setup("x", 6, 2, 32, torch.device("cpu"))
    rows = benchmark_step.measure({"reference": taking([2, 4, 8]), "O2": taking([1, 2, 2])}, setup, 3)
    assert [row["ratio"] for row in rows] == [1.0, 2.0]
    assert [row["clips_per_second"] for row in rows] == [1.5, 3.0]


@pytest.mark.parametrize("argv", [["step", "--variants", "O9"], ["step", "--batch-size", "0"], ["fly"],
                                  ["end-to-end", "--steps", "0"], ["compare", __file__, __file__]])
def test_benchmark_refuses(argv):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(argv)
    assert stop.value.code == 2


def test_variants_say_execution_and_level():
    table = benchmark_step.VARIANTS
    assert table["O2"] == ("auto", "O2", False, None, False)
    assert table["compiled-O2"] == ("compiled", "O2", False, None, False)
    assert table["compiled-graphs-O2"] == ("compiled", "O2", False, None, True)
    assert table["channels-last-O1"] == ("reference", "O1", True, None, False)
    assert table["strict"] == ("reference", "O0", False, False, False) and table["tf32"].tf32 is True


def test_a_channels_last_step_is_a_step():
    setup = benchmark_step.Setup("RESNET50_3D", 2, 2, 32, torch.device("cpu"))
    batch = benchmark_step.synthetic_batch(setup, 101)
    benchmark_step.trained_variant(setup, benchmark_step.VARIANTS["channels-last"])(batch)
    transform = benchmark_step.laid_out(lambda batch: batch.clip.permute(0, 4, 1, 2, 3).contiguous(),
                                        benchmark_step.VARIANTS["channels-last"])
    assert transform(batch).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("source", ["packed", "video"])
def test_end_to_end_holds_whole_training_against_its_step(source, tmp_path, capsys, monkeypatch):
    trained = {"reference": 0.002, "auto": 0.001}

    def variant(setup, row):
        return lambda batch: time.sleep(trained[row.execution])

    monkeypatch.setattr("tools.benchmark_whole.trained_variant", variant)
    rows_file = tmp_path / "rows.json"
    argv = "end-to-end --device cpu --batch-size 2 --clip-length 2 --crop-size 32 --films 1 --steps 3 --rounds 1"
    assert benchmark.main(argv.split() + ["--workers", "0", "--source", source, "--json", str(rows_file)]) == 0
    rows = json.loads(rows_file.read_text())
    assert [row["variant"] for row in rows] == ["reference", "auto"]
    for row in rows:
        assert row["clips_per_second"] < row["synthetic_clips_per_second"] and 0 <= row["data_wait_share"] <= 1
        assert row["of_synthetic"] == pytest.approx(row["clips_per_second"] / row["synthetic_clips_per_second"])
    assert rows[0]["ratio"] == 1.0 and "| auto |" in capsys.readouterr().out


def test_compare_puts_two_files_side_by_side(tmp_path, capsys):
    rows = [{"variant": "reference", "clips_per_second": 2.0, "ratio": 1.0, "spread": [1.0, 4.0]},
            {"variant": "old", "clips_per_second": 1.0, "ratio": 0.5, "spread": [1.0, 1.0]}]
    later = [dict(rows[0], clips_per_second=3.0, spread=[2.0, 4.0]), {"case": "packed", "clips_per_second": 5.0}]
    paths = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for path, content in zip(paths, (rows, later)):
        Path(path).write_text(json.dumps(content))
    assert benchmark_compare.compare(*map(benchmark_compare.read_rows, paths)) == [
        ["reference", "2.00", "3.00", "1.50", "0.50 to 4.00", "1.00", "1.00"],
        ["old", "1.00", "-", "-", "-", "0.50", "-"], ["packed", "-", "5.00", "-", "-", "-", "-"]]
    assert benchmark.main(["compare"] + paths) == 0
    assert "| reference | 2.00 | 3.00 | 1.50 |" in capsys.readouterr().out


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
