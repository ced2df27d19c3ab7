"""Two machines that lose each other: network namespaces joined by a cable, a launcher in each. As root.

    python test/two_machines.py [--timeout 20] [cable|freeze|freeze-machine|kill|gap|return ...]    -> a line each, NAME … pass|fail

cable: cut for longer than anybody waits; freeze: a rank is stopped; freeze-machine: its launcher too; kill: kill -9 of a rank;
gap: the cable is out for a moment; return: cut until all have given up, then whole again, with restarts allowed.
Passes: launchers and ranks of both machines have ended within the timeout plus 10 s and the place of the lost rank was named
(kill: within 10 s); after gap and return the run ends as if nothing had been.
"""
import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JOB = str(ROOT / "test" / "hang_job.py")
PAUSE, GAP = 0.1, 8
EXTRA = 10  # seconds that an end may take beyond the timeout


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Machines:
    """Two namespaces, A and B, with a cable between them; `down` and `up` cut and join it at B's end."""

    def __init__(self):
        mark = "%d" % os.getpid()
        self.spaces = {name: "glore%s%s" % (name, mark) for name in "AB"}
        self.ends = {name: "g%s%s" % (name, mark) for name in "AB"}
        self.address = {"A": "10.77.0.1", "B": "10.77.0.2"}

    def __enter__(self):
        for space in self.spaces.values():
            ip("netns", "add", space)
        ip("link", "add", self.ends["A"], "netns", self.spaces["A"], "type", "veth", "peer", "name", self.ends["B"],
           "netns", self.spaces["B"])
        for name, space in self.spaces.items():
            ip("-n", space, "addr", "add", self.address[name] + "/24", "dev", self.ends[name])
            for device in (self.ends[name], "lo"):
                ip("-n", space, "link", "set", device, "up")
        return self

    def __exit__(self, *_):
        for space in self.spaces.values():
            ip("netns", "del", space)

    def cable(self, state):
        ip("-n", self.spaces["B"], "link", "set", self.ends["B"], state)

    def launch(self, name, log, timeout, steps, restarts):
        """A launcher on a machine, as test/launch.sh starts it."""
        env = dict(os.environ, NNODES="2", NPROC="1", NODE_RANK="01"["AB".index(name)], OMP_NUM_THREADS="1",
                   RDZV_ENDPOINT=self.address["A"] + ":29500", MAX_RESTARTS=str(restarts), PYTHON=sys.executable)
        script = 'eval "$("$PYTHON" -m train.launch 1)"; exec "$PYTHON" "${launcher[@]}" "$@"'
        return subprocess.Popen(["ip", "netns", "exec", self.spaces[name], "bash", "-c", script, "launch", JOB, str(timeout),
                                 str(steps), str(PAUSE)], cwd=str(ROOT), env=env, stdout=log, stderr=subprocess.STDOUT,
                                start_new_session=True)


class Trial:
    """One run on both machines, its logs, and what is done to it."""

    def __init__(self, machines, folder, timeout, steps, restarts=0):
        self.machines, self.logs = machines, {name: Path(folder) / (name + ".log") for name in "AB"}
        self.agents = {}
        for name, path in self.logs.items():
            with open(str(path), "wb") as log:
                self.agents[name] = machines.launch(name, log, timeout, steps, restarts)

    def text(self, name):
        return self.logs[name].read_text(errors="replace")

    def wait_for(self, pattern, seconds, name="A"):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text(name)):
            if time.monotonic() > end or self.agents[name].poll() is not None:
                raise RuntimeError("no '%s' in the log:\n%s" % (pattern, self.text(name)))
            time.sleep(0.05)

    def pid(self, name):
        return int(re.findall(r"pid (\d+)", self.text(name))[-1])

    def seconds_to_end(self, limit):
        """Until both launchers and ranks are gone; None if they are not by then."""
        began = time.monotonic()
        ranks = [self.pid(name) for name in "AB"]
        while time.monotonic() - began < limit:
            if all(agent.poll() is not None for agent in self.agents.values()) and not any(map(running, ranks)):
                return time.monotonic() - began
            time.sleep(0.05)
        return None

    def close(self):
        for agent in self.agents.values():
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
        for name in "AB":
            for pid in map(int, re.findall(r"pid (\d+)", self.text(name))):
                if running(pid):
                    os.kill(pid, signal.SIGKILL)


def running(pid):
    try:
        return Path("/proc/%d/stat" % pid).read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ends(trial, act, limit):
    """(seconds until all have ended or None, texts)"""
    trial.wait_for("step 3$", 60)
    act()
    seconds = trial.seconds_to_end(limit)
    return seconds, trial.text("A") + trial.text("B")


def lost(kind, machines, folder, timeout):
    """A rank or a machine goes away for good: everything has ended in time, and it was said who was where."""
    trial = Trial(machines, folder, timeout, 100000)
    limit = EXTRA if kind == "kill" else timeout + EXTRA
    acts = {"cable": lambda: machines.cable("down"), "freeze": lambda: os.kill(trial.pid("B"), signal.SIGSTOP),
            "kill": lambda: os.kill(trial.pid("B"), signal.SIGKILL)}
    try:
        seconds, text = ends(trial, acts[kind], limit + 20)
        named = re.search(r"rank \d of 2 has lost the others at 'step \d+: adding'", text) and re.search(
            r"(no sign of life|is gone|does not answer)", text)
        good = seconds is not None and seconds <= limit and bool(named)
        return good, "all ended after %s s, limit %g s" % ("%.1f" % seconds if seconds else "-", limit), text
    finally:
        machines.cable("up")
        trial.close()


def survives(kind, machines, folder, timeout):
    """The cable is out for a while: the run goes on."""
    trial = Trial(machines, folder, timeout, 60, restarts=3 if kind == "return" else 0)
    away = timeout + EXTRA if kind == "return" else GAP
    try:
        trial.wait_for("step 3$", 60)
        machines.cable("down")
        time.sleep(away)
        machines.cable("up")
        seconds = trial.seconds_to_end(120)
        text = trial.text("A") + trial.text("B")
        good = seconds is not None and text.count("finished") == 2
        return good, "cable out for %g s, finished %s s later" % (away, "%.1f" % seconds if seconds else "never"), text
    finally:
        trial.close()


TRIALS = {"cable": lost, "freeze": lost, "kill": lost, "gap": survives, "return": survives}


def main(names, timeout):
    """Prints the table; 0 if all passed."""
    if os.geteuid() or subprocess.call(["ip", "netns", "list"], stdout=subprocess.DEVNULL):
        print("two machines: network namespaces need root and iproute2; not run")
        return 0
    passed = True
    for kind in names or list(TRIALS):
        with Machines() as machines, tempfile.TemporaryDirectory() as folder:
            good, figures, text = TRIALS[kind](kind, machines, folder, timeout)
        passed = passed and good
        if not good:
            print(text)
        print("two machines, %s … %s (%s)" % (kind, "pass" if good else "fail", figures), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TRIALS])
    parser.add_argument("--timeout", type=float, default=20.0)
    options = parser.parse_args()
    sys.exit(main(options.names, options.timeout))
