"""The watchdog beside the launcher: whom it kills, when it ends the launcher; with processes of the plainest kind."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from train import agent, stopping
from train.agent import GRACE, JOINING, Watchdog
from train.whereabouts import LOST, Beat

ROOT = Path(__file__).resolve().parents[3]
# A launcher that starts one process, which sends beats until it is stopped, and then waits for ever.
LAUNCHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import time
from train.whereabouts import HERE, Watch
HERE.at("epoch 2 step 17: training")
Watch(1, 4, 0.6).start()
time.sleep(60)
'''], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def beat(state="running", at=100.0, left=0, rank=3):
    return Beat(rank, 10 + rank, state, "epoch 2 step 17: training", at, 20.0, left)


def judged(dog, beats, now, there=True):
    return dog.judge(beats, lambda pid: there, now)


def test_a_process_without_a_sign_of_life_is_killed_after_the_timeout():
    dog = Watchdog()
    assert judged(dog, [beat()], 119.9) == ([], "")
    assert judged(dog, [beat(), beat(at=119.0, rank=4)], 120.1) == ([beat()], "")


@pytest.mark.parametrize("state, there", [("running", False), ("lost", True), ("lost", False)])
def test_the_launcher_has_a_moment_to_end_when_a_process_is_gone(state, there):
    dog = Watchdog()
    for now in (110.0, 110.0 + GRACE):
        assert judged(dog, [beat(state)], now, there) == ([], "")
    verdict = judged(dog, [beat(state)], 110.1 + GRACE, there)
    assert "rank 3 is gone (last at 'epoch 2 step 17: training')" in verdict.hopeless


def test_where_restarts_are_left_the_others_may_still_come():
    dog = Watchdog()
    judged(dog, [beat("lost", left=2)], 110.0)
    assert judged(dog, [beat("lost", left=2)], 110.0 + JOINING).hopeless == ""
    assert judged(dog, [beat("lost", left=2)], 110.1 + JOINING + GRACE).hopeless
    fresh = beat(at=700.0)._replace(pid=99)
    assert Watchdog().judge([fresh], lambda pid: True, 701.0) == ([], "")


def test_who_is_done_is_not_missed():
    dog = Watchdog()
    for now in (110.0, 1e6):
        assert judged(dog, [beat("done")], now, there=False) == ([], "")


def test_a_frozen_process_is_killed_named_and_the_launcher_ended(tmp_path, monkeypatch):
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    code = "import sys; from train import agent; agent.GRACE = 0.5; agent.main(['launcher'])"
    started = subprocess.Popen([sys.executable, "-c", code], cwd=str(ROOT), stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, universal_newlines=True,
                               env=dict(os.environ, PYTHONPATH="%s:%s" % (tmp_path, ROOT)))
    pid = int(started.stdout.readline())
    folder = wait_for(lambda: [path for path in Path("/proc/%d/environ" % pid).read_bytes().split(b"\0")
                               if path.startswith(b"GLORE_BEATS=")])[0].decode().partition("=")[2]
    wait_for(lambda: list(Path(folder).glob("*.json")))
    os.kill(pid, signal.SIGSTOP)
    _, said = started.communicate(timeout=20)
    assert started.returncode == LOST and not agent.is_alive(pid) and not Path(folder).exists()
    assert "rank 1 has given no sign of life" in said and "at 'epoch 2 step 17: training'" in said
    assert "rank 1 is gone" in said and "Traceback" not in said


def wait_for(answer):
    end = time.monotonic() + 20
    while not answer():
        assert time.monotonic() < end
        time.sleep(0.02)
    return answer()


def test_the_launchers_end_is_the_watchdogs(tmp_path):
    (tmp_path / "launcher.py").write_text("import sys; print(sys.argv); sys.exit(7)")
    done = subprocess.run([sys.executable, "-m", "train.agent", "launcher", "--a", "b"], cwd=str(ROOT),
                          stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert done.returncode == 7 and b"'--a', 'b'" in done.stdout


# A launcher that wants the signals for itself, as PyTorch's do, and whose process ends in order when it is asked to.
ASKED = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import signal
def end(number, frame):
    print("asked by", number, flush=True)
    raise SystemExit(0)
signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGUSR1, end)
print("ready", flush=True)
while True:
    signal.pause()
'''], start_new_session=True)
signal.signal(signal.SIGTERM, lambda number, frame: child.kill())
sys.exit(child.wait())
"""


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_who_asks_the_launcher_to_stop_asks_its_processes(tmp_path, number):
    (tmp_path / "launcher.py").write_text(ASKED)
    started = subprocess.Popen([sys.executable, "-m", "train.agent", "launcher"], cwd=str(ROOT), stdout=subprocess.PIPE,
                               universal_newlines=True, env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert started.stdout.readline() == "ready\n"
    started.send_signal(number)
    assert agent.SIGNALS == stopping.SIGNALS
    assert started.communicate(timeout=20)[0] == "asked by %d\n" % number and started.returncode == 0


def test_a_launcher_that_has_started_nothing_ends_by_the_signal(tmp_path):
    (tmp_path / "launcher.py").write_text("import time; print('waits', flush=True); time.sleep(60)")
    started = subprocess.Popen([sys.executable, "-m", "train.agent", "launcher"], cwd=str(ROOT), stdout=subprocess.PIPE,
                               env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert started.stdout.readline() == b"waits\n"
    started.send_signal(signal.SIGTERM)
    assert started.wait(20) == -signal.SIGTERM
    started.stdout.close()


def test_torn_and_foreign_beats_are_passed_over(tmp_path):
    (tmp_path / "0.json").write_text(json.dumps(beat()._asdict()))
    (tmp_path / "1.json").write_text("{")
    (tmp_path / "2.json").write_text('{"rank": 1}')
    assert agent.read_beats(tmp_path) == [beat()]
