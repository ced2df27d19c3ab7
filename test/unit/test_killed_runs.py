"""Runs that are killed, told to stop, or go on with other numbers of processes end as if nothing had been."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

HERE = Path(__file__).resolve().parent
JOBS = ("killed", "killed_beside", "killed_among_two", "stopped_among_two", "fewer_processes")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each job of toy_faults.py found; one process, as PyTorch takes longer to load than all of them to run."""
    command = [sys.executable, str(HERE / "toy_faults.py"), str(tmp_path_factory.mktemp("runs"))]
    environment = dict(os.environ, PYTHONPATH="%s:%s" % (ROOT, HERE), OMP_NUM_THREADS="1")
    done = subprocess.run(command + list(JOBS), stdout=subprocess.PIPE, env=environment, universal_newlines=True)
    assert done.returncode == 0
    return json.loads(done.stdout)


def test_killed_in_a_step_in_precise_bn_in_an_evaluation_and_in_a_save(found):
    assert found["killed"] == {"codes": [[-9]] * 6 + [[0]], "same": True, "samples": ""}


def test_killed_while_checkpoints_are_written_beside_the_steps(found):
    assert found["killed_beside"] == {"codes": [[-9]] * 4 + [[0]], "same": True, "samples": ""}


def test_one_of_two_processes_killed(found):
    codes = found["killed_among_two"].pop("codes")
    assert [code[1] for code in codes] == [-9, -9, -9, 0] and [code[0] == 0 for code in codes] == [False] * 3 + [True]
    assert found["killed_among_two"] == {"same": True, "samples": ""}


def test_a_signal_to_one_of_two_stops_both_at_the_same_step(found):
    job = found["stopped_among_two"]
    assert job["codes"] == [[40, 40]] * 3 + [[0, 0]]
    steps, evaluated, rows = zip(*job["places"])
    assert list(steps) == sorted(set(steps)) and steps[-1] == 18
    assert evaluated == (False, False, False, True) and rows == (2, 2, 2, 0)
    assert job["same"] and job["samples"] == ""


def test_fewer_processes_take_the_same_clips_in_turns(found):
    assert found["fewer_processes"].pop("apart") < 1e-6
    assert found["fewer_processes"] == {"codes": [0] * 13, "samples": ""}
