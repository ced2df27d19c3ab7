"""Two machines that lose each other: network namespaces joined by a cable, a launcher in each. Linux, as root; else two
launchers on this machine, and no trials with the cable.

    python test/two_machines.py [--timeout 20] [cable freeze machine kill gap return restart]  -> a line each, pass|fail

cable: cut for good; freeze: a rank is stopped; machine: its launcher too, and both go on later; kill: kill -9 of a
rank; gap: the cable is out for a moment; return: cut until all have given up, then whole again, with restarts allowed;
restart: as kill, with restarts allowed.
A trial passes when launchers and ranks of both machines have ended within the timeout plus 10 s (kill: within 10 s;
a frozen machine's: 10 s after it goes on) and it was said which rank was lost and where it stood; the last three
pass when the run ends as if nothing had been.
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
sys.path.insert(0, str(ROOT))

from train.agent import is_alive  # noqa: E402
from train.launch import free_port, has_torchrun  # noqa: E402

JOB = str(ROOT / "test" / "hang_job.py")
PAUSE, GAP = 0.1, 8
EXTRA = 10  # seconds that an end may take beyond the timeout


def ip(*words):
    subprocess.run(["ip", *words], check=True)


class Machines:
    """A and B. `cabled`: namespaces with a cable between them, which can be cut at B's end."""

    def __init__(self, cabled):
        self.cabled = cabled
        self.spaces = {name: "glore%s%d" % (name, os.getpid()) for name in "AB"}
        self.ends = {name: "g%s%d" % (name, os.getpid()) for name in "AB"}
        self.port = 29500 if cabled else free_port()
        self.address = "10.77.0.1" if cabled else "127.0.0.1"  # A's

    def __enter__(self):
        if not self.cabled:
            return self
        for space in self.spaces.values():
            ip("netns", "add", space)
        ip("link", "add", self.ends["A"], "netns", self.spaces["A"], "type", "veth", "peer", "name", self.ends["B"],
           "netns", self.spaces["B"])
        for name, address in (("A", self.address), ("B", "10.77.0.2")):
            ip("-n", self.spaces[name], "addr", "add", address + "/24", "dev", self.ends[name])
            for device in (self.ends[name], "lo"):
                ip("-n", self.spaces[name], "link", "set", device, "up")
        return self

    def __exit__(self, *_):
        for space in self.spaces.values() if self.cabled else ():
            ip("netns", "del", space)

    def cable(self, state):
        ip("-n", self.spaces["B"], "link", "set", self.ends["B"], state)

    def launch(self, name, log, words, restarts=0):
        """A launcher on a machine, as test/launch.sh starts it, with these words behind it."""
        env = dict(os.environ, NNODES="2", NPROC="1", NODE_RANK="01"["AB".index(name)], OMP_NUM_THREADS="1",
                   PYTHON=sys.executable)
        if has_torchrun():
            env.update(RDZV_ENDPOINT="%s:%d" % (self.address, self.port), MAX_RESTARTS=str(restarts))
        else:
            env.update(MASTER_ADDR=self.address, MASTER_PORT=str(self.port))
        script = 'eval "$("$PYTHON" -m train.launch 1 --resume)"; exec "$PYTHON" "${launcher[@]}" "$@"'
        command = ["ip", "netns", "exec", self.spaces[name]] if self.cabled else []
        command += ["bash", "-c", script, "launch", *map(str, words)]
        return subprocess.Popen(command, cwd=str(ROOT), env=env, stdout=log, stderr=subprocess.STDOUT,
                                start_new_session=True)


class Trial:
    """One run on both machines, its logs, and what is done to it."""

    def __init__(self, machines, folder, timeout, steps, restarts=0):
        self.machines, self.logs = machines, {name: Path(folder) / (name + ".log") for name in "AB"}
        self.agents = {}
        for name, path in self.logs.items():
            with open(str(path), "wb") as log:
                self.agents[name] = machines.launch(name, log, (JOB, timeout, steps, PAUSE), restarts)

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

    def seconds_to_end(self, limit, names="AB"):
        """Until launchers and ranks of these machines are gone; None if they are not by then."""
        began = time.monotonic()
        ranks = [self.pid(name) for name in names]
        while time.monotonic() - began < limit:
            if all(self.agents[name].poll() is not None for name in names) and not any(map(is_alive, ranks)):
                return time.monotonic() - began
            time.sleep(0.05)
        return None

    def both(self):
        return self.text("A") + self.text("B")

    def named(self):
        """Whether it was said who was lost, and where."""
        text = self.both()
        return bool(re.search(r"rank \d of 2 has lost the others at 'step \d+: adding'", text) and re.search(
            r"no sign of life|is gone|does not answer", text))

    def close(self):
        for agent in self.agents.values():
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
        for name in "AB":
            for pid in map(int, re.findall(r"pid (\d+)", self.text(name))):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)


def lost(kind, machines, trial, timeout):
    """A rank or the cable goes away for good: (passed, figures)."""
    act = {"cable": lambda: machines.cable("down"), "freeze": lambda: os.kill(trial.pid("B"), signal.SIGSTOP),
           "kill": lambda: os.kill(trial.pid("B"), signal.SIGKILL)}
    limit = EXTRA if kind == "kill" else timeout + EXTRA
    act[kind]()
    seconds = trial.seconds_to_end(limit + 20)
    return (seconds is not None and seconds <= limit and trial.named(),
            "all ended after %s s, limit %g s" % (shown(seconds), limit))


def frozen_machine(kind, machines, trial, timeout):
    """Nothing of a machine runs for longer than anybody waits: the other ends in time, and it when it goes on."""
    pids = [trial.agents["B"].pid, trial.pid("B")]
    for pid in pids:
        os.killpg(pid, signal.SIGSTOP)
    other = trial.seconds_to_end(timeout + EXTRA, "A")
    for pid in pids:
        os.killpg(pid, signal.SIGCONT)
    itself = trial.seconds_to_end(EXTRA, "B")
    return (other is not None and itself is not None and trial.named(),
            "the other ended after %s s, limit %g s; itself %s s after it went on, limit %d s"
            % (shown(other), timeout + EXTRA, shown(itself), EXTRA))


def survived(kind, machines, trial, timeout):
    """The cable is out for a while: the run goes on."""
    away = timeout + EXTRA if kind == "return" else GAP
    machines.cable("down")
    time.sleep(away)
    machines.cable("up")
    seconds = trial.seconds_to_end(120)
    return (seconds is not None and trial.both().count("finished") == 2,
            "the cable was out for %g s, all finished %s s later" % (away, shown(seconds)))


def started_again(kind, machines, trial, timeout):
    """A rank is killed, and restarts are left: all are started again and finish."""
    os.kill(trial.pid("B"), signal.SIGKILL)
    seconds = trial.seconds_to_end(120)
    return seconds is not None and trial.both().count("finished") == 2, "all finished %s s later" % shown(seconds)


def shown(seconds):
    return "never" if seconds is None else "%.1f" % seconds


TRIALS = {"cable": lost, "freeze": lost, "machine": frozen_machine, "kill": lost, "gap": survived, "return": survived,
          "restart": started_again}
CABLED = ("cable", "gap", "return")


def run(kind, timeout):
    """One trial on two machines of its own: (passed, figures, logs)."""
    with Machines(possible()) as machines, tempfile.TemporaryDirectory() as folder:
        steps = 100 if kind in ("gap", "return", "restart") else 1000000
        trial = Trial(machines, folder, timeout, steps, 3 if kind in ("return", "restart") else 0)
        try:
            trial.wait_for("step 3\n", 120)
            return TRIALS[kind](kind, machines, trial, timeout) + (trial.both(),)
        finally:
            trial.close()


def possible():
    """Whether this process may make network namespaces."""
    return os.geteuid() == 0 and subprocess.call(["ip", "netns", "list"], stdout=subprocess.DEVNULL) == 0


def main(names, timeout):
    """Prints the table; 0 if all passed."""
    results = []
    for kind in names or list(TRIALS):
        if kind in CABLED and not possible():
            print("two machines, %s … not run: network namespaces need root and iproute2" % kind)
            continue
        passed, figures, logs = run(kind, timeout)
        results.append(passed)
        if not passed:
            print(logs)
        print("two machines, %s … %s (%s)" % (kind, "pass" if passed else "fail", figures), flush=True)
    return 0 if all(results) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TRIALS])
    parser.add_argument("--timeout", type=float, default=20.0)
    options = parser.parse_args()
    sys.exit(main(options.names, options.timeout))
