"""benchmarks/gpu.sh rehearsed without a GPU: what it would run is sound, stays within its time, and is reported."""
import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from tools import benchmark, benchmark_step
from train.options import parse_options

sys.path.insert(0, str(ROOT / "benchmarks"))
import gpu_report

STUB = """#!/bin/sh
case "$*" in *is_available*) exit 0 ;; esac
case "$1" in -c | - | benchmarks/gpu_report.py) exec %s "$@" ;; esac
echo "$@" >>%s
"""


def rehearse(tmp_path, **settings):
    """(exit code, command lines that would have run, standard output and error)."""
    stub, log = tmp_path / "python", tmp_path / "commands"
    stub.write_text(STUB % (sys.executable, log))
    stub.chmod(0o755)
    environment = dict(os.environ, PYTHON=str(stub), GLORE_VENV=str(tmp_path / "none"), DEVICE="cuda", **settings)
    done = subprocess.run(["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(tmp_path / "out")], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    lines = log.read_text().splitlines() if log.exists() else []
    return done.returncode, [line.split() for line in lines], done.stdout + done.stderr


def test_every_command_is_one_that_the_tools_take(tmp_path, monkeypatch):
    code, commands, said = rehearse(tmp_path)
    assert code == 0 and "# GPU results" in said and "FAILED" not in said
    measured = [command[2:] for command in commands if command[:2] == ["-m", "tools.benchmark"]]
    asked = []
    monkeypatch.setattr(benchmark_step.devices, "choose_device", lambda wanted: torch.device(wanted))

    def note(parser, options):
        setup, variants = benchmark_step.read_setup(parser, options)
        asked.append((options.what, setup.batch_size, set(variants)))
        return 0

    for what in ("step", "infer", "end-to-end"):
        monkeypatch.setitem(benchmark.WORK, what, benchmark.WORK[what][:2] + (note,))
    assert [benchmark.main(argv) for argv in measured] == [0] * len(measured)
    assert {"strict", "tf32", "channels-last-O2", "compiled-O2", "compiled-graphs-O2", "O2"} <= asked[0][2]
    assert [what for what, _, _ in asked] == ["step"] * 3 + ["infer"] + ["end-to-end"] * 2
    trained = [command for command in commands if "train_model.py" in command]
    assert len(trained) == 5 and sum("--distributed" in command for command in trained) == 1
    for command in trained:
        parse_options(command[command.index("train_model.py") + 1:])


def test_it_ends_in_time(tmp_path):
    code, commands, said = rehearse(tmp_path, LIMIT="4")
    assert code == 1 and not commands and "NO TIME LEFT: step" in said and "not measured" in said


@pytest.mark.parametrize("speeds, line", [
    ({"reference": 10, "O2": 100, "compiled": 11, "compiled-O2": 150}, '"cuda": "compiled"  # 1.50 of auto today'),
    ({"reference": 10, "O2": 100, "compiled-O2": 101, "channels-last-O2": 300}, '"cuda": "reference"')])
def test_the_report_says_what_auto_should_be(speeds, line, tmp_path, capsys):
    rows = [{"variant": name, "clips_per_second": speed} for name, speed in speeds.items()]
    (tmp_path / "step.json").write_text(json.dumps(rows))
    (tmp_path / "step.log").write_text("| a table |")
    gpu_report.main(tmp_path)
    said = capsys.readouterr().out
    assert said.rstrip().endswith(line) and "| a table |" in said and "| O2 | not measured" in said
