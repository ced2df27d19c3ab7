"""A training on two machines, one of which goes away for a while. A test of test/soak.py."""
import os
import signal
import time

from soak_run import TASK, Skipped, check, children, kill_all, wait_for
from two_machines import EXTRA, Machines, possible

TIMEOUT = 40  # seconds; above what a step takes where several processes share two cores


def trained(runs, folder, happens):
    """A run on both machines, restarts allowed, to which something happens after its first checkpoint; what it said."""
    words = runs.command(folder, 2)
    words = words[words.index("train_model.py"):] + ["--dist-timeout", TIMEOUT]
    agents = []
    with Machines(True) as machines, open(str(runs.root / (folder.name + ".said")), "wb") as said:
        try:
            agents += [machines.launch(name, said, words, 3) for name in "AB"]
            wait_for(lambda: (folder / TASK / "checkpoints" / "newest").exists(), 900, "the first checkpoint")
            happens(machines, agents[1].pid)
            codes = [agent.wait(900) for agent in agents]
        finally:
            for agent in agents:
                kill_all(agent)
    said = runs.said(folder)
    check(codes == [0, 0] and "resumed from" in said, "exit codes %s: %s" % (codes, said[-600:]))
    runs.compare(folder, 2)
    return said


def cut_off(machines, agent):
    """The cable is out until both have given up."""
    machines.cable("down")
    time.sleep(TIMEOUT + EXTRA)
    machines.cable("up")


def frozen(machines, agent):
    """The second machine's process is stopped, and never goes on."""
    os.kill(children(agent)[-1], signal.SIGSTOP)


def node_away(runs, options):
    """Two machines train; one is cut off, or its process frozen: named, all start again, and end exactly."""
    if not possible():
        raise Skipped("network namespaces need root and iproute2")
    runs.whole(2)
    for happens, words in ((cut_off, "has lost the others at"), (frozen, "has given no sign of life for")):
        check(words in trained(runs, runs.root / happens.__name__, happens), "%s: nothing was named" % happens.__name__)
    return "cut off for %d s, and frozen: named, and exact after they are back" % (TIMEOUT + EXTRA)
