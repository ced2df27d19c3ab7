"""The bash scripts as a user starts them: real processes, this Python."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_CLIPS

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "network" / "pretrained" / "resnet50-lite_3d_8x8_w-glore_2-3_ep-0000.pth"
UCF101 = ROOT / "dataset" / "UCF101" / "raw"
TINY = SMALL_CLIPS + (
    "--batch-size 3 --no-pretrained --max-steps 2 --workers 1 --device cpu --amp-dtype fp32 --no-precise-bn "
    "--task-name t").split()


def bash(script, *options, **environment):
    """(exit code, standard output, standard error)."""
    env = dict(os.environ, **dict({"PYTHON": sys.executable}, **environment))
    done = subprocess.run(["bash", str(ROOT / "test" / script)] + list(options), env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def result_of(out):
    return json.loads((Path(str(out)) / "t" / "result.json").read_text())


def test_one_process_trains_and_ends_with_the_table(tiny_videos, tmp_path):
    code, said, errors = bash("train_performance_1p.sh", *TINY, "--data-root", str(tiny_videos), "--model-dir",
                              str(tmp_path))
    assert code == 0, errors
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == ["NAME", "ACC@1", "FPS", "Epochs", "AMP_Type"]
    assert rows[2].startswith("| 1p-CPU") and "O2 (computed fp32)" in rows[2]
    assert "recipe performance_1p" in said and "typed" in said
    assert "host memory: MALLOC_TRIM_THRESHOLD_=" in said and "THP_MEM_ALLOC_ENABLE=1" in said


def test_two_processes_evaluate_each_video_once(tiny_videos, tmp_path):
    code, said, errors = bash("train_performance_8p.sh", *TINY, "--data-root", str(tiny_videos), "--model-dir",
                              str(tmp_path), NPROC="2")
    assert code == 0, errors
    result = result_of(tmp_path)
    assert (result["name"], result["num_videos"], result["steps"]) == ("2p-CPU", 9, 2)
    assert said.count("| 2p-CPU") == 1
    one = bash("train_performance_1p.sh", *TINY, "--data-root", str(tiny_videos), "--model-dir", str(tmp_path / "e"),
               "--eval-only", "--pretrained", str(tmp_path / "t" / "model.pth"))
    assert one[0] == 0, one[2]
    alone = json.loads((tmp_path / "e" / "t" / "evaluation.json").read_text())
    assert alone["accuracy_top1"] == result["accuracy_top1"] and alone["loss"] == pytest.approx(
        result["loss"], rel=1e-5)


@pytest.mark.parametrize(
    "script, nproc, words",
    [("train_full_8p.sh", "9", "NPROC="), ("train_full_8p.sh", "x", "NPROC=x"), ("train_full_1p.sh", "0", "NPROC=0")])
def test_more_processes_than_devices_are_refused_before_anything_starts(script, nproc, words):
    device = "cpu" if nproc != "9" else "cuda"
    code, said, errors = bash(script, "--device", device, NPROC=nproc)
    assert code == 2 and words in errors and said == "" and errors.count("\n") <= 2


def test_eight_devices_on_a_machine_without_say_how_to_go_on():
    code, _, errors = bash("train_full_8p.sh", "--device", "cpu", NPROC="")
    assert code == 2 and "NPROC=1 bash test/train_full_8p.sh" in errors


@pytest.mark.skipif(WEIGHTS.exists(), reason="the weights are there")
@pytest.mark.parametrize("recipe", ["full_1p", "full_8p"])
def test_without_weights_the_two_lines_help(recipe):
    code, said, errors = bash("train_%s.sh" % recipe, **({"NPROC": "2"} if recipe == "full_8p" else {}))
    assert code == 2 and said == ""
    lines = errors.strip().splitlines()
    assert len(lines) == 2 and WEIGHTS.name in lines[0] and str(WEIGHTS) in lines[1]


@pytest.mark.skipif(UCF101.exists(), reason="the data is there")
def test_without_data_the_two_lines_help():
    code, _, errors = bash("train_full_1p.sh", "--no-pretrained")
    lines = errors.strip().splitlines()
    assert code == 2 and len(lines) == 2 and str(UCF101) in lines[0] and "--data-root" in lines[1]


def _fake_python(folder, body):
    path = folder / "fake-python"
    path.write_text("#!/usr/bin/env bash\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_setup_uses_an_environment_with_torch_as_it_is():
    code, said, errors = bash("setup.sh")
    assert (code, said.strip(), errors) == (0, sys.executable, "")


@pytest.mark.parametrize("body, words", [
    ('case "$1" in -) echo cv2 ;; *) exit 0 ;; esac\n', "cv2"),  # has torch, lacks cv2
    ('case "$2" in *torch*) exit 1 ;; *) echo 3.9 ;; esac\n', "3.10")])  # no torch, and too old for requirements.txt
def test_setup_refuses_what_it_cannot_use_and_installs_nothing(tmp_path, body, words):
    code, said, errors = bash("setup.sh", PYTHON=_fake_python(tmp_path, body), GLORE_VENV=str(tmp_path / "venv"))
    assert code == 2 and words in errors and said == "" and not (tmp_path / "venv").exists()
