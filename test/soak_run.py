"""What the tests of test/soak.py share: starts train_model.py, alone or by torchrun, kills and compares it."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from train.whereabouts import read_beats

ROOT = Path(__file__).resolve().parents[1]
TASK = "t"


class Failed(Exception):
    """A test did not find what it should."""


class Skipped(Exception):
    """A test cannot be made here."""


def check(holds, what):
    if not holds:
        raise Failed(what)


class Trainings:
    """Runs of one recipe: some clips of motion10, `steps` steps, saved every `every`; folders below `root`."""

    def __init__(self, root, steps, every, videos):
        self.root, self.steps, self.every, self.videos = Path(root), steps, every, videos
        self.temporary = self.root / "tmp"
        self.rng = random.Random(1)
        self._whole = {}

    def command(self, folder, processes, *more):
        """The command line of a run; by torchrun where there are several processes."""
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "train.agent", "torch.distributed.run", "--nproc_per_node", str(processes),
                        "--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0",
                        "--max_restarts", "3"]
        return command + [
            "train_model.py", "--dataset", "folder", "--data-root", str(self.videos), "--network", "RESNET50_3D",
            "--crop-size", "32", "--clip-length", "4", "--train-frame-interval", "2", "--val-frame-interval", "2",
            "--batch-size", "4" if processes == 1 else "2", "--max-steps", str(self.steps), "--save-every",
            str(self.every), "--end-epoch", "9", "--lr-base", "0.01", "--warmup-steps", "3", "--eval-batch-size", "2",
            "--task-name", TASK, "--deterministic", "--device", "cpu", "--workers", "1", "--log-samples", "--resume",
            "auto", "--model-dir", str(folder)] + (["--distributed"] if processes > 1 else []) + list(more)

    def start(self, folder, processes=1, *more, before=()):
        """A run in a process group of its own; its words go to FOLDER/said."""
        for place in (folder, self.temporary):
            place.mkdir(parents=True, exist_ok=True)
        environment = dict(os.environ, TMPDIR=str(self.temporary))
        with open(str(folder.parent / (folder.name + ".said")), "ab") as said:
            return subprocess.Popen([*before, *self.command(folder, processes, *more)], cwd=str(ROOT), stdout=said,
                                    stderr=said, start_new_session=True, env=environment)

    def said(self, folder):
        """All that the runs of a folder wrote on the terminal."""
        path = folder.parent / (folder.name + ".said")
        return path.read_text(errors="replace") if path.exists() else ""

    def forget_places(self):
        """Removes what earlier processes said of where they stand."""
        for path in self.temporary.glob("glore_beats_*/*.json"):
            path.unlink()

    def place(self):
        """Where one of several processes last stood, in a word; they tell twice a second."""
        beats = [beat for folder in self.temporary.glob("glore_beats_*") for beat in read_beats(folder)]
        words = ("starting", "saving", "precise BN", "evaluation", "training", "first batch")
        return next((word for beat in beats for word in words if word in beat.place), "before it is known")

    def finish(self, folder, processes=1, *more, code=0, within=1800, before=()):
        """A run to its end."""
        child = self.start(folder, processes, *more, before=before)
        try:
            found = child.wait(within)
        except subprocess.TimeoutExpired:
            kill_all(child)
            raise Failed("no end within %d s" % within)
        finally:
            kill_all(child)
        check(code is None or found == code or (code == "bad" and found != 0),
              "exit code %s, not %s: %s" % (found, code, self.said(folder)[-600:]))
        return found

    def whole(self, processes=1):
        """The folder of an uninterrupted run, and the seconds it took."""
        if processes not in self._whole:
            folder, begin = self.root / ("whole-%d" % processes), time.time()
            self.finish(folder, processes)
            self._whole[processes] = folder, time.time() - begin
        return self._whole[processes]

    def compare(self, folder, processes=1):
        """The weights, the last checkpoint and the samples are those of the uninterrupted run."""
        whole = self.whole(processes)[0]
        for name in ("model.pth", "checkpoints/" + newest(whole)):
            check(same(torch.load(str(whole / TASK / name)), torch.load(str(folder / TASK / name))),
                  "%s differs from the uninterrupted run's" % name)
        check(samples(folder, processes) == samples(whole, processes), "the steps took other samples")
        for rows in samples(whole, processes).values():
            check(len(rows) == len(set(rows)), "a sample twice in a step")


def newest(folder):
    """Name of the newest checkpoint of a run."""
    return (folder / TASK / "checkpoints" / "newest").read_text().split()[0]


def same(one, other):
    """Whether two contents hold equal tensors and numbers; times and the options of the last start are left out."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            same(one[name], other[name]) for name in one if name not in ("seconds", "config", "random"))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def samples(folder, processes):
    """Rows of each step, over all processes. Failed where a step that was repeated took others."""
    steps = {}
    for rank in range(processes):
        of_rank = {}
        for line in (folder / TASK / ("samples.rank-%d.jsonl" % rank)).read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # torn by a kill
                continue
            check(of_rank.setdefault(row["step"], row["rows"]) == row["rows"], "step %d repeated with other samples"
                  % row["step"])
        for step, rows in of_rank.items():
            steps.setdefault(step, []).extend(rows)
    check(sorted(steps) == list(range(1, max(steps) + 1)), "steps are missing: %s" % sorted(steps))
    return steps


def kill_all(child):
    """Ends a run with all its processes, at once."""
    for pid in [child.pid] + descendants(child.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    child.wait()


def children(pid):
    """Numbers of the processes that one has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(path.read_text().rsplit(")", 1)[1].split()[1]) == pid:
                found.append(int(path.parent.name))
        except (OSError, IndexError):  # it has just ended
            continue
    return sorted(found)


def descendants(pid):
    """Those, and what they have started."""
    return [below for child in children(pid) for below in [child] + descendants(child)]


def wait_for(condition, seconds, what):
    """Waits until a condition holds; Failed where it never does."""
    end = time.time() + seconds
    while not condition():
        check(time.time() < end, "%s: not within %d s" % (what, seconds))
        time.sleep(0.1)
