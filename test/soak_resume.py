"""A real network that goes on with other numbers of processes and of loader workers. Tests of test/soak.py."""
import os
import signal

import torch
from soak_run import TASK, check, kill_all, newest, same, samples, wait_for

from data.sample_order import SampleOrder

CLIPS, PART, SIZE = 900, 9, 8  # motion10's; an epoch is a ninth of them: 12 steps of 8 clips, four are left over
STEPS, FIRST = CLIPS // PART // SIZE, "checkpoints/t_step-00000005.pth"
# How far weights may be apart in the end, as a share of the way that they went: two gradients have one sum, eight have
# another one in another order, and at 32 pixels a rounding grows a hundredfold in a step.
APART = {"8-4-1": 0.2, "1-2-1": 0.0}


def ran(runs, name, way):
    """The folder of a run on motion10 with the default network. `way`: (processes, options) of its parts; each but the
    last is asked to stop when the checkpoint of every fifth step is there, one after the other.
    """
    folder = runs.root / name
    options = ["--dataset", "motion10", "--data-root", str(runs.root / "motion10"), "--network", "RESNET50_3D_GCN_X5",
               "--clip-length", "8", "--epoch-div-factor", str(PART), "--end-epoch", "1", "--lr-base", "0.001",
               "--eval-batch-size", "8", "--keep", "9", "--save-every", "5", "--max-steps", str(STEPS)]
    for number, (processes, more) in enumerate(way[:-1], 1):
        child, saved = runs.start(folder, processes, *options, *more), "t_step-%08d.pth" % (5 * number)
        try:
            wait_for((folder / TASK / "checkpoints" / saved).exists, 900, "%s of %s" % (saved, name))
            os.kill(child.pid, signal.SIGTERM)
            check(child.wait(300) == 0, "%s: exit code %s: %s" % (name, child.returncode, runs.said(folder)[-600:]))
        finally:
            kill_all(child)
    runs.finish(folder, way[-1][0], *options, *way[-1][1])
    check_samples(folder, max(processes for processes, _ in way))
    return folder


def check_samples(folder, processes):
    """Each step has the clips that the seed says, so each clip of the epoch comes once, save the last four."""
    order = [int(row) for row in SampleOrder(1, CLIPS)(0)[:CLIPS // PART]]
    steps = samples(folder, processes)
    check(len(steps) == STEPS, "%d steps" % len(steps))
    for step, rows in steps.items():
        wanted = order[(step - 1) * SIZE:step * SIZE]
        check(sorted(rows) == sorted(wanted), "step %d has the clips %s, not %s" % (step, rows, wanted))


def equal(one, other, name):
    return same(torch.load(str(one / TASK / name)), torch.load(str(other / TASK / name)))


def distance(one, other):
    """How far the weights of two runs are apart, as a share of the way that they went after the first save."""
    start = torch.load(str(one / TASK / FIRST))["state_dict"]
    ends = [torch.load(str(folder / TASK / "checkpoints" / newest(folder)))["state_dict"] for folder in (one, other)]
    names = [name for name in start if name.endswith((".weight", ".bias"))]
    went, apart = (torch.cat([(a[name] - b[name]).double().reshape(-1) for name in names]).norm()
                   for a, b in ((ends[0], start), ends))
    return float(apart / went)


def other_processes(runs, options):
    """Eight processes, then four, then one; one, then two, then one; beside the same runs in one piece."""
    found = []
    for name, world, batch, way in (("8-4-1", 8, "1", (8, 4, 1)), ("1-2-1", 1, "4", (1, 2, 1))):
        more = ["--batch-size", batch, "--accumulate", str(SIZE // int(batch) // world)]
        whole = ran(runs, "in-one-piece-%d" % world, [(world, more)])
        cut = ran(runs, name, [(processes, more) for processes in way])
        check(equal(whole, cut, FIRST), "%s: the first part is another" % name)
        found.append("%s: weights %.1e of their way apart" % (name, distance(whole, cut)))
        check(distance(whole, cut) <= APART[name], found[-1])
    return "every clip once; " + ", ".join(found)


def other_workers(runs, options):
    """No process that reads videos, then four, then none: nothing changes."""
    whole, cut = (ran(runs, name, [(1, ["--batch-size", "8", "--workers", workers]) for workers in name.split("-")])
                  for name in ("2", "0-4-0"))
    for name in ("model.pth", "checkpoints/" + newest(whole)):
        check(equal(whole, cut, name), "%s differs" % name)
    return "every clip once; model.pth and the last checkpoint equal to the bit"
