"""Tasks in several processes: one that crashes or hangs costs itself alone."""
import multiprocessing
import os
import signal
import sys
import time

import pytest

from dataset.workers import Lost, run_all
from train.agent import is_alive


def _do(task):
    if task == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "exit":
        os._exit(3)
    if task == "hang":
        time.sleep(600)
    return os.getpid(), task


def _gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("processes", [1, 3])
def test_every_task_ends(processes):
    tasks = list(range(20)) + ["crash"] + list(range(20, 30)) + ["exit", "hang", 30, "crash"]
    results = dict(zip(*zip(*((repr(task), result) for task, result in run_all(_do, tasks, processes, 3.0)))))
    assert len(results) == 34
    assert all(results[repr(number)][1] == number for number in range(31))
    assert len({results[repr(number)][0] for number in range(31)}) >= processes
    assert results["'crash'"] == Lost("its process ended (exit code -9)")
    assert results["'exit'"] == Lost("its process ended (exit code 3)")
    assert results["'hang'"] == Lost("not done after 3 seconds")
    assert all(_gone(results[repr(number)][0]) for number in range(31))


def test_leaving_early_ends_the_processes():
    running = run_all(_do, iter(range(100)), 2, 60.0)
    pids = {next(running)[1][0] for _ in range(10)}
    running.close()
    assert all(_gone(pid) for pid in pids)


def test_no_task():
    assert list(run_all(_do, [], 4, 1.0)) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a helper ends when its task has")
def test_helpers_of_a_killed_process_end_in_the_middle_of_a_task(tmp_path):
    def started(_):
        (tmp_path / "pid.part").write_text(str(os.getpid()))
        os.rename(str(tmp_path / "pid.part"), str(tmp_path / "pid"))
        time.sleep(600)

    parent = multiprocessing.get_context("fork").Process(target=lambda: list(run_all(started, ["task"], 1, 600)))
    parent.start()
    while not (tmp_path / "pid").exists():
        assert parent.is_alive()
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    helper = int((tmp_path / "pid").read_text())
    for _ in range(500):
        if not is_alive(helper):
            return
        time.sleep(0.01)
    os.kill(helper, signal.SIGKILL)
    raise AssertionError("the helper works on")
