"""test/lanes.sh where a lane is missing, and the verdicts of its table."""
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

TEST = Path(__file__).resolve().parents[1]
FACTS = {"torch": "1.5.0", "python": "3.7", "errors": {}, "clips": ["a", "b"], "losses": [1.0, 0.5, 0.25, 0.125],
         "batch_statistics": [1.0, 2.0, 3.0], "two_processes": [1.0, 0.5, 0.25], "tests": "861 passed", "seconds": 9.0}
READ = {"files": 4, "wrong": []}


def table(logs, *names):
    """(exit code, lines) of lane_table.py."""
    done = subprocess.run([sys.executable, str(TEST / "lane_table.py"), str(logs)] + list(names),
                          stdout=subprocess.PIPE, universal_newlines=True)
    return done.returncode, done.stdout.splitlines()


def lane(logs, name, facts=None, read=None, absent=None):
    """What a lane of that name left behind."""
    folder = logs / name
    folder.mkdir()
    (folder / "wanted").write_text("%s 3.7\n" % name)
    if absent:
        (folder / "absent").write_text(absent)
    for file, content in (("facts.json", facts), ("read.json", read)):
        if content is not None:
            (folder / file).write_text(json.dumps(content))


def test_lanes_that_agree_pass(tmp_path):
    lane(tmp_path, "1.5.0", FACTS, READ)
    lane(tmp_path, "2.x", dict(FACTS, torch="2.13.0", python="3.11", losses=[1.00001, 0.5, 0.25, 0.125]), READ)
    code, lines = table(tmp_path, "1.5.0", "2.x")
    assert code == 0 and len(lines) == 2
    assert lines[0].startswith("torch 1.5.0 python 3.7") and lines[0].endswith("pass") and "861 passed" in lines[0]
    assert lines[1].startswith("torch 2.13.0 python 3.11") and lines[1].endswith("pass")


@pytest.mark.parametrize("change, words", [
    ({"errors": {"tests": "AssertionError: 1 failed"}}, "1 failed"), ({"clips": ["a", "c"]}, "1 of 2 batches differ"),
    ({"losses": [1.0, 0.5, 0.2501, 0.125]}, "losses"), ({"losses": [1.0]}, "losses"),
    ({"batch_statistics": [1.0, 2.0, float("nan")]}, "batch_statistics"),
    ({"two_processes": [1.0, 0.6, 0.25]}, "two processes")])
def test_a_lane_that_differs_fails_and_says_where(tmp_path, change, words):
    lane(tmp_path, "1.5.0", dict(FACTS, **change), READ)
    lane(tmp_path, "2.x", dict(FACTS, torch="2.13.0"), READ)
    code, lines = table(tmp_path, "1.5.0", "2.x")
    assert code == 1 and lines[-2].endswith("fail") and lines[-1].endswith("pass")
    assert any(line.startswith("FAIL: torch 1.5.0") and words in line for line in lines)


def test_files_that_cannot_be_read_and_an_early_end_fail(tmp_path):
    lane(tmp_path, "1.5.0", FACTS, {"files": 4, "wrong": ["2.x/new.pth"]})
    lane(tmp_path, "1.8.1")
    lane(tmp_path, "2.x", FACTS, READ)
    code, lines = table(tmp_path, "1.5.0", "1.8.1", "2.x")
    assert code == 1 and [line.split()[-1] for line in lines[-3:]] == ["fail", "fail", "pass"]
    assert "2.x/new.pth" in lines[0] and "ended before its time" in lines[1]


def test_an_absent_lane_is_said_loudly_and_is_no_failure(tmp_path):
    lane(tmp_path, "1.5.0", absent="no Python 3.7")
    lane(tmp_path, "2.x", FACTS, READ)
    code, lines = table(tmp_path, "1.5.0", "2.x")
    assert code == 0 and lines[0] == "ABSENT: torch 1.5.0 python 3.7 was NOT tested: no Python 3.7"
    assert lines[1].endswith("absent") and lines[2].endswith("pass")


def executable(path, body):
    path.write_text("#!/usr/bin/env bash\n" + body)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_interpreters_and_wheels_every_lane_is_absent_and_nothing_passes(tmp_path):
    """No Python 3.8; a Python 3.7 whose pip finds no PyTorch; a python3 that is too old for PyTorch 2."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "mkdir", "rm", "touch", "tail", "grep", "flock", "cat", "basename", "cmp", "cp"):
        found = subprocess.check_output(["bash", "-c", "command -v " + name], universal_newlines=True).strip()
        if found.startswith("/"):
            (tools / name).symlink_to(found)
    no_torch = executable(tmp_path / "no-torch", "echo 'No matching distribution found for torch==1.5.0' >&2\nexit 1\n")
    executable(tools / "python3.7",
               'if [ "$2" = venv ]; then mkdir -p "$4/bin"; cp %s "$4/bin/python"; fi\n' % no_torch)
    old = executable(tmp_path / "old", 'case "$2" in *torch*) exit 1 ;; *) echo 3.9 ;; esac\n')
    (tools / "python3").symlink_to(sys.executable)
    done = subprocess.run(["bash", str(TEST / "lanes.sh")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
                          env={"PATH": str(tools), "HOME": str(tmp_path), "GLORE_LANES": str(tmp_path / "lanes"),
                               "PYTHON": str(old), "GLORE_VENV": str(tmp_path / "none")}, universal_newlines=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and len(lines) == 6, done.stdout + done.stderr
    assert [line.split()[-1] for line in lines[3:]] == ["absent"] * 3
    assert "No matching distribution found for torch==1.5.0" in lines[0]
    assert "no Python 3.8" in lines[1] and "3.10 or later" in lines[2]
    assert not os.path.exists(str(tmp_path / "lanes" / "torch-1.5.0" / ".torch"))
