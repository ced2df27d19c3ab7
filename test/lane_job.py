"""One lane of test/lanes.sh: what one generation of PyTorch does, written down for test/lane_table.py to compare.

    python test/lane_job.py prepare DATA              a part of motion10
    python test/lane_job.py work OUT DATA [pytest's arguments]     -> OUT/facts.json
    python test/lane_job.py read OUT OTHER_OUT...     opens what every lane has saved   -> OUT/read.json
"""
import hashlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "test" / "unit" / "golden")]
import formula  # noqa: E402

import train_model  # noqa: E402
from data.device_transforms import clip_noise  # noqa: E402
from dataset import motion10  # noqa: E402
from network.safe_load import safe_load  # noqa: E402
from train import checkpoint, distributed  # noqa: E402
from train.log import stop_logging  # noqa: E402

STEPS, STEPS_OF_TWO = 10, 3  # in one process, in two
TEST_MINUTES = 40  # the unit tests of a lane take half of it on two cores
GROUPS, CLIPS = (1, 8, 9), (1, 2)  # of motion10: 20 videos to test with, 40 to train with
FORMATS = {"new.pth": True, "legacy.pth": False}  # torch.save's two formats
OPTIONS = ("--dataset motion10 --crop-size 32 --batch-size 4 --workers 1 --device cpu --opt-level O0 --lr-base 0.001 "
           "--warmup-steps 0 --precise-bn --task-name t").split()


def options(out, data, *more):
    """Options of train_model.py for a short run in single precision on motion10."""
    return OPTIONS + ["--data-root", str(data), "--model-dir", str(out)] + list(more)


def prepare(data):
    """A part of motion10, as video files below `data`, so that an epoch and an evaluation are short."""
    for motion in motion10.MOTIONS:
        (data / "data" / motion).mkdir(parents=True)
        for group, clip in itertools.product(GROUPS, CLIPS):
            path = data / "data" / motion / motion10.video_name(motion, group, clip)
            motion10.write_film(str(path), motion10.make_clip(motion, group, clip), motion10.FRAMES_PER_SECOND)
    (data / "data" / motion10.FILMS.version_file).write_text(motion10.FILMS.version, encoding="utf-8")


def tests(out, data, arguments):
    """The unit tests; how many passed, failed and were skipped, in pytest's own words."""
    if (out / "tested").exists():
        return "tested before"
    command = [sys.executable, "-u", "-m", "pytest", "test/unit", "-p", "no:cacheprovider", "-rs", "--basetemp",
               str(out / "scratch" / "tests")]
    log = out / "tests.log"
    with log.open("w", encoding="utf-8") as written:
        done = subprocess.run(command + arguments, cwd=str(ROOT), stdout=written, stderr=subprocess.STDOUT,
                              timeout=TEST_MINUTES * 60)
    last = log.read_text(encoding="utf-8").strip().splitlines()[-1].strip("= ")
    assert done.returncode == 0, "unit tests: %s; see %s" % (last, log)
    return last.split(" in ")[0]


def training(out, data, _):
    """Trains, resumes and evaluates by the command line, a process each; the loss and the accuracy of the last two."""
    for more in ("--end-epoch 1", "--end-epoch 2 --resume --allow-change schedule",  # a longer run, so another schedule
                 "--end-epoch 2 --resume --eval-only"):
        command = [sys.executable, "train_model.py"] + options(out / "scratch", data, *more.split())
        subprocess.check_call(command, cwd=str(ROOT))
    folder = out / "scratch" / "t"
    result, again = (json.loads((folder / name).read_text()) for name in ("result.json", "evaluation.json"))
    assert result["steps"] > 0 and result["epochs"] == again["epochs"] == 2, result
    assert math.isfinite(result["loss"]) and math.isclose(result["loss"], again["loss"], rel_tol=1e-6), (result, again)
    assert result["accuracy_top1"] == again["accuracy_top1"] and result["num_unreadable"] == 0, (result, again)
    return {"loss": result["loss"], "accuracy_top1": result["accuracy_top1"]}


def compose(out, data, *more):
    """The main job, ready to step, on weights that follow from their names alone, without dropout."""
    job = train_model.compose(options(out / "scratch" / "composed", data, *more))
    formula.load_det(job.trainer.module)
    job.trainer.module.dropout.p = 0.0
    return job


def run_steps(job, steps, batch_statistics=False):
    """The loss of each of the first steps, over all processes.

    BatchNorm takes its running statistics: over the few values of so small a batch the gradients of any two versions
    differ by half a percent, in float32, and the losses of a training soon have nothing in common.
    """
    losses = []
    job.trainer.model.train(batch_statistics)
    for number, batch in enumerate(job.streams.training(0, 0, steps), 1):
        assert job.trainer.step(batch, number)
        losses.append(job.trainer.metrics.compute(distributed.all_reduce_sum).loss)
        job.trainer.metrics.reset()
    return losses


def clips(out, data, _):
    """Hashes of batches as they come from the loaders, and of the noise that follows from them."""
    job = compose(out, data)
    streams = job.streams
    hashes = []
    for start in (lambda: streams.training(0, 0, 4), lambda: streams.training(1, 16, 4),
                  lambda: streams.statistics(1, 2), streams.evaluation):
        for batch in start():
            n, frames, height, width, channels = batch.clip.shape
            noise = clip_noise(batch.noise_key, batch.jitter, (channels, frames, height, width))
            hashes.append(digest([batch._asdict(), noise]))
    streams.close()
    return hashes


def losses(out, data, _):
    """Losses of ten steps; leaves weights and momenta in both formats of torch.save."""
    job = compose(out, data)
    found = run_steps(job, STEPS)
    job.streams.close()
    assert len(found) == STEPS and found[0] != found[-1]
    content = {"state_dict": job.state.state_dict(), "optimizer": checkpoint.optimizer_state(job.trainer.optimizer),
               "losses": found, "names": ["\u00fc", None, True, 1 << 70], "shape": (2, 3)}
    for name, new in FORMATS.items():
        torch.save(content, str(out / "scratch" / name), _use_new_zipfile_serialization=new)
    (out / "digest").write_text(digest(content))
    return found


def batch_statistics(out, data, _):
    """Losses of the first batches where BatchNorm takes the batch's own statistics, at a rate that changes nothing."""
    job = compose(out, data, "--lr-base", "1e-12")
    found = run_steps(job, STEPS_OF_TWO, batch_statistics=True)
    job.streams.close()
    return found


def one_of_two(rank, out, data):
    """What each of two processes does; the first writes the losses down."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    meet = "file://%s" % (out / "scratch" / "meet")
    job = compose(out, data, "--distributed", "--dist-url", meet, "--batch-size", "2")
    found = run_steps(job, STEPS_OF_TWO)
    job.streams.close()
    if rank == 0:
        (out / "two.json").write_text(json.dumps(found))
    distributed.barrier(job.runtime.device)
    distributed.stop()


def two_processes(out, data, _):
    """Losses of the first steps in two processes that average their gradients over gloo."""
    torch.multiprocessing.spawn(one_of_two, args=(out, data), nprocs=2)
    return json.loads((out / "two.json").read_text())


def digest(value):
    """A hash of plain data and tensors: names, types, shapes and every bit."""
    return hashlib.sha256("\n".join(_parts(value)).encode("utf-8")).hexdigest()


def _parts(value):
    if isinstance(value, torch.Tensor):
        data = value.detach().contiguous().numpy().tobytes()
        yield "%s %s %s" % (value.dtype, tuple(value.shape), hashlib.sha256(data).hexdigest())
    elif isinstance(value, dict):
        for key, item in value.items():
            yield repr(key)
            yield from _parts(item)
    elif isinstance(value, (list, tuple)):
        yield type(value).__name__
        for item in value:
            yield from _parts(item)
    else:
        yield repr(value)


PHASES = (clips, losses, batch_statistics, two_processes, training, tests)


def work(out, data, arguments):
    """Runs every phase, whatever became of the one before, and writes down what came of each."""
    began = time.time()
    (out / "scratch").mkdir()
    facts = {"torch": str(torch.__version__).split("+")[0], "python": "%d.%d" % sys.version_info[:2], "errors": {}}
    for phase in PHASES:
        print("== %s, torch %s, after %.0f s" % (phase.__name__, facts["torch"], time.time() - began), flush=True)
        try:
            facts[phase.__name__] = phase(out, data, arguments)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            facts["errors"][phase.__name__] = ("%s: %s" % (type(error).__name__, error)).splitlines()[0][:300]
        finally:
            stop_logging()
    facts["seconds"] = time.time() - began
    (out / "facts.json").write_text(json.dumps(facts, indent=1))


def read(out, others):
    """Opens the files of every lane; what they hold must be, bit for bit, what their writer held."""
    wrong = []
    files = [other / "scratch" / name for other in others for name in FORMATS if (other / "digest").exists()]
    for file in files:
        try:
            same = digest(safe_load(file)) == (file.parents[1] / "digest").read_text()
        except Exception as error:
            same = False
            traceback.print_exc()
            print("%s: %s" % (file, error))
        if not same:
            wrong.append("%s/%s" % (file.parents[1].name, file.name))
    (out / "read.json").write_text(json.dumps({"files": len(files), "wrong": wrong}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    elif sys.argv[1] == "work":
        work(Path(sys.argv[2]).resolve(), Path(sys.argv[3]).resolve(), sys.argv[4:])
    else:
        read(Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
