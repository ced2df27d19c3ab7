"""What a run waits for a checkpoint: what a save is made of, and what of it a thread beside the steps would hide.

    python test/save_time.py [--crop-size 224] [--batch-size 4] [--rounds 3]     -> a table, as in benchmarks/saving.md

Steps of RESNET50_3D_GCN_X5 on this CPU; and steps that only wait, as for a device that computes elsewhere.
"""
import argparse
import hashlib
import io
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from network import build_network  # noqa: E402
from network.execution import set_execution  # noqa: E402
from train.amp import Precision  # noqa: E402
from train.checkpoint import optimizer_state  # noqa: E402
from train.files import save_tensors  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.optim import build_sgd, parameter_groups  # noqa: E402
from train.schedule import LearningRate  # noqa: E402

CPU = torch.device("cpu")


class Batch:
    """Clips and labels, as a step takes them."""

    def __init__(self, clips, size):
        self.clip, self.label = torch.randn(clips, 3, 8, size, size), torch.arange(clips)


def trainer():
    """The network, with momenta."""
    network = build_network("RESNET50_3D_GCN_X5", 400)
    set_execution(network, "auto")
    precision = Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(network), 1e-4, False), 1e-6)
    made = Trainer(network, optimizer, LearningRate(1e-6, 1), precision, lambda batch: batch.clip, 1)
    made.step(Batch(2, 32), 1)
    return made


def content_of(made, copied):
    """Weights and momenta; `copied`: so that steps may go on."""
    content = {"state_dict": made.precision.state_dict_of(made.module), "optimizer": optimizer_state(made.optimizer)}
    return {part: {name: value.clone() if copied else value for name, value in values.items()}
            for part, values in content.items()}


def parts(made, folder):
    """Seconds of a save's parts, and bytes."""
    times, marks = {}, [time.perf_counter()]

    def mark(name):
        marks.append(time.perf_counter())
        times[name] = marks[-1] - marks[-2]
    content = content_of(made, True)
    mark("a copy in memory")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    mark("torch.save into memory")
    data = buffer.getbuffer()
    hashlib.sha256(data).hexdigest()
    mark("digest")
    with open(os.path.join(folder, "parts"), "wb") as file:
        file.write(data)
        mark("write")
        os.fsync(file.fileno())
    mark("to the disk")
    return times, len(data)


def run(step, steps, save, beside):
    """Seconds of some steps with a save before them, in a thread beside them or not; the thread's end included."""
    began = time.perf_counter()
    content = save(beside)
    if beside:
        thread = threading.Thread(target=save_tensors, args=content)
        thread.start()
    else:
        save_tensors(*content)
    for number in range(steps):
        step(number + 2)
    if beside:
        thread.join()
    return time.perf_counter() - began


def main(options):
    made, rows = trainer(), {}
    batch = Batch(options.batch_size, options.crop_size)
    with tempfile.TemporaryDirectory(dir=str(options.folder)) as folder:
        taken = [parts(made, folder) for _ in range(options.rounds)]
        print("%.0f MB, %d threads" % (taken[0][1] / 1e6, torch.get_num_threads()))
        for name in taken[0][0]:
            print("| %s | %.2f s |" % (name, statistics.median(times[name] for times, _ in taken)))
        path = Path(folder) / "c.pth"
        for name, step, steps in (("computed here", lambda number: made.step(batch, number), options.steps),
                                  ("computed elsewhere", lambda number: time.sleep(0.05), 100)):
            bare = statistics.median(timed(step, steps) for _ in range(options.rounds))
            for beside in (False, True) * options.rounds:
                seconds = run(step, steps, lambda copied: (content_of(made, copied), path), beside)
                rows.setdefault((name, beside), []).append(seconds - bare)
            print("| steps %s: %.2f s each; lost to a save between steps | %.2f s |" % (
                name, bare / steps, statistics.median(rows[name, False])))
            print("| the same, saved by a thread | %.2f s |" % statistics.median(rows[name, True]))


def timed(step, steps):
    began = time.perf_counter()
    for number in range(steps):
        step(number + 2)
    return time.perf_counter() - began


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("crop-size", 224), ("batch-size", 4), ("steps", 3), ("rounds", 3)):
        parser.add_argument("--" + name, type=int, default=default)
    parser.add_argument("--folder", default=str(ROOT))
    main(parser.parse_args())
