"""A study: runs in turns, kept and gone on with, and what their numbers say."""
import json
import math
import os
import shlex
import signal
import threading
import time
from pathlib import Path

import pytest

import train_model
from network import NETWORKS, build_network
from tools import study, study_report, study_train

STUB = """
import json, os, sys, time
words = sys.argv[1:]
value = {name: words[words.index("--" + name) + 1] for name in ("network", "random-seed", "model-dir", "task-name")}
folder = os.path.join(value["model-dir"], value["task-name"])
os.makedirs(folder, exist_ok=True)
with open(os.path.join(value["model-dir"], "order.txt"), "a") as file:
    file.write("%s %s\\n" % (value["task-name"], words[words.index("--resume") + 1]))
if os.path.exists(os.path.join(value["model-dir"], "fail")):
    sys.exit(2)
if os.path.exists(os.path.join(value["model-dir"], "hang")):
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    open(os.path.join(folder, "begun"), "w").close()
    time.sleep(60)
seed, glore = int(value["random-seed"]), value["network"].endswith("X5")
end_epoch = int(words[words.index("--end-epoch") + 1])
json.dump({"accuracy_top1": 50.0 + seed + 10 * glore * seed, "network": value["network"], "dataset": "motion10",
           "class_names": ["a", "b", "c"], "num_videos": 9, "epochs": end_epoch, "steps": 4, "seconds": 1.0,
           "loss": 1.0, "protocol": "p", "device": "d", "torch": "2",
           "config": {"end_epoch": end_epoch, "modality": "rgb", "clip_length": 2, "crop_size": 32}},
          open(os.path.join(folder, "result.json"), "w"))
"""
TURNS = ["resnet50_3d_seed-1", "resnet50_3d_gcn_x5_seed-1", "resnet50_3d_seed-2", "resnet50_3d_gcn_x5_seed-2"]


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    for name in [name + "_QUARTER" for name in NETWORKS]:  # a study puts them there; the table is as before afterwards
        monkeypatch.setitem(NETWORKS, name, None)
        monkeypatch.delitem(NETWORKS, name)
    for name in ("RESNET50_3D", "RESNET50_3D_GCN_X5"):
        stages = tuple(stage._replace(blocks=1, mid=4, out=8 * (number + 1), temporal=(1,),
                                      glore_after=stage.glore_after[:1])
                       for number, stage in enumerate(NETWORKS[name].stages))
        monkeypatch.setitem(NETWORKS, name, NETWORKS[name]._replace(stages=stages))


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A train_model.py that only writes what it was asked for."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(study, "TRAIN", [str(tmp_path / "stub.py")])
    return tmp_path / "out"


def command(out, *training):
    return [str(out), "--seeds", "2", "--"] + list(training or ("--end-epoch", "3"))


def order(out):
    return [line.split()[0] for line in (out / "order.txt").read_text().splitlines()]


def test_networks_take_turns_and_finished_runs_are_kept(stub, capsys):
    assert study.main(command(stub)) == 0
    assert order(stub) == TURNS
    said = capsys.readouterr().out
    assert "| RESNET50_3D |" in said and "1: 51.00, 2: 52.00 | 51.50 ± 0.71" in said
    assert "RESNET50_3D_GCN_X5 less RESNET50_3D: +15.00 points over 2 seeds" in said
    content = json.loads((stub / "study.json").read_text())
    assert content["differences"][0]["points"] == [10, 20] and len(content["runs"]) == 4
    assert all(run["processor_seconds"] > 0 for run in content["runs"])
    (stub / TURNS[1] / "result.json").unlink()
    assert study.main(command(stub)) == 0
    assert order(stub) == TURNS + TURNS[1:2]
    assert study.main([str(stub), "--seeds", "1", "--only-report", "--", "--end-epoch", "3"]) == 0
    assert "an interval takes two seeds" in capsys.readouterr().out and len(order(stub)) == 5


@pytest.mark.parametrize("argv, problem", [
    (["{out}", "--", "--end-epoch", "4"], "trained with --end-epoch 3, not 4"),
    (["{out}", "--networks", "RESNET50_3D", "resnet50_3d"], "--networks takes different names"),
    (["{out}", "--networks", "RESNET50"], "--network RESNET50 is not known"),
    (["{out}", "--seeds", "0"], "--seeds 1 or more"),
    (["{out}", "--", "--random-seed", "3"], "--random-seed: every run of a study has its own"),
    (["{out}/elsewhere", "--only-report"], "no run of this study is finished yet"),
])
def test_what_cannot_be_studied(stub, capsys, argv, problem):
    assert study.main([str(stub), "--seeds", "1", "--", "--end-epoch", "3"]) == 0
    capsys.readouterr()
    assert study.main([word.format(out=stub) for word in argv]) == 2
    assert problem in capsys.readouterr().err
    assert len(order(stub)) == 2  # nothing was started for it


def test_a_damaged_result_and_a_failing_run(stub, capsys):
    stub.mkdir()
    (stub / "fail").touch()
    assert study.main(command(stub)) == 2
    assert "RESNET50_3D, seed 1: train_model.py ended with exit code 2" in capsys.readouterr().err
    assert order(stub) == TURNS[:1]
    (stub / TURNS[0] / "result.json").write_text("{")
    assert study.main(command(stub)) == 2
    assert "result.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("dies_of_it", [False, True])  # as train_model.py does before it listens and after its end
def test_a_signal_reaches_the_run_and_the_same_command_goes_on(stub, capsys, tmp_path, dies_of_it):
    if dies_of_it:
        (tmp_path / "stub.py").write_text(STUB.replace("signal.signal(", "(lambda *_: None)("))
    stub.mkdir()
    (stub / "hang").touch()

    def stop():
        while not (stub / TURNS[0] / "begun").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    assert study.main(command(stub)) == 130
    thread.join()
    assert "the same command goes on" in capsys.readouterr().err and order(stub) == TURNS[:1]
    (stub / "hang").unlink()
    assert study.main(command(stub)) == 0
    assert order(stub) == TURNS[:1] + TURNS
    assert len((stub / TURNS[0] / "cost.jsonl").read_text().splitlines()) == 2


def test_narrow_copies_have_a_quarter_of_the_channels():
    study_train.add_quarters()
    study_train.add_quarters()
    narrow = [name for name in NETWORKS if name.endswith("_QUARTER")]
    assert len(narrow) == 4 and not any(name.endswith("_QUARTER_QUARTER") for name in narrow)
    wide, quarter = (NETWORKS[name].stages for name in ("RESNET101_3D_GCN_X5", "RESNET101_3D_GCN_X5_QUARTER"))
    assert [4 * stage.mid for stage in quarter] == [stage.mid for stage in wide]
    assert [stage._replace(mid=0, out=0) for stage in quarter] == [stage._replace(mid=0, out=0) for stage in wide]
    assert build_network("RESNET101_3D_GCN_X5_QUARTER", 3).conv3.B01_extra.num_node == 32


def test_what_changes_no_result_may_differ(stub):
    assert study.main(command(stub)) == 0
    assert study.main(command(stub, "--end-epoch", "3", "--workers", "7")) == 0
    assert order(stub) == TURNS


def test_real_runs(tiny_videos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "train", lambda trial, training: train_model.main(study.arguments(trial, training)))
    training = ("--dataset folder --crop-size 32 --clip-length 4 --train-frame-interval 3 --val-frame-interval 3 "
                "--batch-size 4 --end-epoch 1 --max-steps 2 --no-precise-bn --device cpu --workers 0 --opt-level O0 "
                "--eval-batch-size 9 --data-root").split() + [str(tiny_videos)]
    assert study.main([str(tmp_path / "out"), "--seeds", "1", "--"] + training) == 0
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [run["network"] for run in content["runs"]] == ["RESNET50_3D", "RESNET50_3D_GCN_X5"]
    assert content["networks"][1]["parameters"] > content["networks"][0]["parameters"]
    assert content["config"]["max_steps"] == 2
    pytest.importorskip("matplotlib")
    assert (tmp_path / "out" / "study.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("freedom, bound", [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706),
                                            (9, 2.2622), (10, 2.2281), (30, 2.0423)])
def test_bounds_of_students_t(freedom, bound):
    """Against the printed tables."""
    assert abs(study_report.t_bound(freedom) - bound) < 1e-4


def test_the_interval_is_of_the_pairs():
    rows = [{"network": name, "seed": seed, "accuracy_top1": score} for name, scores in (
        ("A", (50.0, 60.0, 70.0)), ("B", (52.0, 61.0, 73.0))) for seed, score in enumerate(scores, 1)]
    row = study_report.difference(rows + [{"network": "A", "seed": 4, "accuracy_top1": 0.0}], "A", "B")
    assert row["points"] == [2.0, 1.0, 3.0] and row["mean"] == 2.0
    half = 4.302653 * 1.0 / math.sqrt(3)
    assert [round(value, 4) for value in row["interval"]] == [round(2 - half, 4), round(2 + half, 4)]
    assert study_report.sentence(row).endswith("no difference is shown")
    assert "no seed is finished of both" in study_report.sentence(study_report.difference(rows[:3], "A", "B"))


def test_the_benchmarks_command_is_a_study(tmp_path):
    """What benchmarks/does_glore_help.sh hands over, its variables filled in."""
    text = (Path(study.PROJECT) / "benchmarks" / "does_glore_help.sh").read_text(encoding="utf-8")
    command = text[text.index("tools.study ") + 12:].replace("\\\n", "").replace('"$@"', "--max-steps 2")
    for name, value in (("$out", str(tmp_path)), ("$width", "_QUARTER"), ("$data", "relations"),
                        ("${SEEDS:-3}", "3")):
        assert name in command
        command = command.replace(name, value)
    options = study.parse(shlex.split(command))
    assert [(trial.network, trial.seed) for trial in study.plan(options)][:3] == [
        ("RESNET50_3D_QUARTER", 1), ("RESNET50_3D_GCN_X5_QUARTER", 1), ("RESNET50_3D_QUARTER", 2)]
    typed = study.typed_options(options.training)
    assert typed["dataset"] == "relations" and typed["lr_steps"] == ["80%", "95%"] and typed["max_steps"] == 2


def test_help_shows_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        study.main(["--help"])
    said = capsys.readouterr().out
    assert stop.value.code == 0 and "exps/study --networks RESNET50_3D RESNET50_3D_GCN_X5" in said
