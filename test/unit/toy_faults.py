"""Kills, stops and spoils toy runs in forked processes, where PyTorch is loaded once for all of them.

    PYTHONPATH=.:test/unit python test/unit/toy_faults.py FOLDER JOB...     a line of JSON: what each job found
"""
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch
import toy_run
from toy_run import lost_or_twice, same

from train import distributed, files, stopping
from train.checkpoint import Checkpoints, load_checkpoint
from train.log import start_logging
from train.stopping import Stopped

STOPPED = 40  # exit code of a run that ended as it was asked


def in_child(work, wait=True):
    """Runs work() in a forked process; its exit code, negative for a signal, or with wait=False its number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = work() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child if not wait else ended(child)


def ended(child):
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def signal_at(owner, name, call, number=signal.SIGKILL):
    """From now on the process sends itself a signal at a call of owner.name, counted from 1, before it does anything.
    """
    inner, seen = getattr(owner, name), []

    def counted(*args, **options):
        seen.append(1)
        if len(seen) == call:
            os.kill(os.getpid(), number)
        return inner(*args, **options)
    setattr(owner, name, counted)
    return seen


def run(folder, rank=0, world=1, fault=None, **changes):
    """In a child: a run, or the rest of it, of one of several processes; `fault` is for signal_at."""
    if world > 1:
        distributed.start(distributed.Ranks(rank, rank, world), "gloo", "file://%s" % (folder / "meeting"))
    if fault:
        signal_at(*fault)
    try:
        toy_run.run(folder, **changes)
    except Stopped:
        return STOPPED
    return 0


def several(folder, world=1, fault_of=lambda rank: None, **changes):
    """Exit codes of the processes of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "meeting").exists():
        (folder / "meeting").unlink()
    children = [in_child(lambda: run(folder, rank, world, fault_of(rank), **changes), wait=False)  # noqa: B023
                for rank in range(world)]
    return [ended(child) for child in children]


def killed_among_two(out):
    """The same with two processes, the second of which is killed."""
    several(out / "whole", 2, batch_size=2)
    faults = [(toy_run, "clips", 3), (toy_run, "clips", 9), (toy_run, "clips", 14), None]
    codes = [several(out / "cut", 2, lambda rank: fault if rank else None, resume="auto", batch_size=2)  # noqa: B023
             for fault in faults]
    return {"codes": codes, "same": same(out / "whole" / "model.pth", out / "cut" / "model.pth"),
            "samples": lost_or_twice(out / "cut", 2)}


def stopped_among_two(out):
    """One of two processes gets a signal in a step, in precise BN and in an evaluation."""
    stopping.MOST_CALLS = 2
    options = {"batch_size": 2, "precise_bn": False, "save_every": 0}
    several(out / "whole", 2, **options)
    codes, places = [], []
    for call in (3, 9, 7, 40):
        fault = (toy_run, "clips", call, signal.SIGTERM if call % 2 else signal.SIGUSR1)
        codes.append(several(out / "cut", 2, lambda rank: fault if rank else None, resume="auto", **options))  # noqa: B023
        content = load_checkpoint(Checkpoints(out / "cut" / "checkpoints", "t").newest_first()[0]).content
        places.append([content["position"]["step"], content["evaluated"], len(content.get("buffers", ()))])
    return {"codes": codes, "places": places, "samples": lost_or_twice(out / "cut", 2),
            "same": same(out / "whole" / "model.pth", out / "cut" / "model.pth")}


def fewer_processes(out):
    """Eight processes, then four, then one: the steps keep their clips, and the weights become the same but for the
    order in which gradients are added up.
    """
    several(out / "whole", 8, batch_size=1)
    codes = several(out / "run", 8, batch_size=1, last_step=2) + several(
        out / "run", 4, batch_size=1, last_step=5, resume="auto") + several(out / "run", batch_size=1, resume="auto")
    whole, found = (torch.load(str(out / name / "model.pth")) for name in ("whole", "run"))
    return {"codes": codes, "samples": lost_or_twice(out / "run", 8, 8),
            "apart": max(float((value - found[name]).abs().max()) for name, value in whole.items()
                         if value.is_floating_point())}


def killed(out):
    """One run killed in a step, in precise BN, in an evaluation and in a save, and resumed each time."""
    several(out / "whole")
    faults = [(toy_run, "clips", 3), (toy_run, "clips", 9), (toy_run, "clips", 15), (files.os, "fsync", 2),
              (files.os, "replace", 3), (toy_run, "clips", 20)]
    codes = [several(out / "cut", fault_of=lambda rank: fault, resume="auto") for fault in faults]  # noqa: B023
    codes.append(several(out / "cut", resume="auto"))
    return {"codes": codes, "same": same(out / "whole" / "model.pth", out / "cut" / "model.pth"),
            "samples": lost_or_twice(out / "cut")}


def killed_beside(out):
    """The same where checkpoints are written while the steps go on."""
    several(out / "whole")
    faults = [(files.os, "fsync", 2), (toy_run, "clips", 4), (files.os, "replace", 3), (toy_run, "clips", 9), None]
    codes = [several(out / "cut", fault_of=lambda rank: fault, resume="auto", beside=True) for fault in faults]  # noqa: B023
    return {"codes": codes, "same": same(out / "whole" / "model.pth", out / "cut" / "model.pth"),
            "samples": lost_or_twice(out / "cut")}


JOBS = {job.__name__: job for job in (killed, killed_beside, killed_among_two, stopped_among_two, fewer_processes)}


def main(folder, names):
    sys.modules["torch.utils.tensorboard"] = None  # takes seconds to load
    torch.optim.SGD([torch.zeros(1)], lr=1.0)  # loads a part of PyTorch that every child would load for itself
    os.dup2(2, 1)
    start_logging(1)
    return {name: JOBS[name](Path(folder) / name) for name in names}


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    answer.write(json.dumps(main(sys.argv[1], sys.argv[2:])))
    answer.close()
