"""Does a design help? Networks trained alike from several seeds, then compared pair by pair.

    python -m tools.study exps/study --networks RESNET50_3D RESNET50_3D_GCN_X5 --seeds 3 -- --dataset relations

What follows `--` goes to train_model.py for every run. NAME_QUARTER is the network NAME with a quarter of its channels,
which a processor trains in minutes. The networks take turns, seed by seed, so that what is finished can be compared.
Finished runs are kept: after a stop the same command goes on, in the middle of a run too. Ends with a table, study.json
and, with matplotlib, study.png.
"""
import argparse
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from dataset.progress import INTERRUPTED, USER_ERROR
from network import find_network
from tools.study_report import report
from tools.study_train import add_quarters
from train.files import write_atomically
from train.options import parse_options

PROJECT = str(Path(__file__).resolve().parents[1])
TRAIN = ["-m", "tools.study_train"]
FREE = ("workers", "keep", "save_frequency", "save_every", "log_file", "log_samples", "data_root")  # change no result
OURS = ("network", "random_seed", "model_dir", "task_name", "resume", "eval_only", "profile", "dry_run", "describe")


class Trial(NamedTuple):
    """One run of the study."""

    network: str
    seed: int
    folder: Path

    def result(self) -> Optional[Dict[str, Any]]:
        """What its result.json says; None while it is not finished."""
        path = self.folder / "result.json"
        if not path.is_file():
            return None
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError("%s is damaged (%s): remove its folder, and the run is done again" % (path, error))

    def processor_seconds(self) -> float:
        """Seconds on a processor of all its parts that ended by themselves or by a signal to train_model.py."""
        path = self.folder / "cost.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return float(sum(json.loads(line)["processor_seconds"] for line in lines))


class Stopped(Exception):
    """A run was asked to stop."""


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """The command line; `training` holds what follows `--`."""
    parser = argparse.ArgumentParser(prog="python -m tools.study", description=__doc__,
                                     usage="%(prog)s output [options] [-- options of train_model.py]",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder of the study; each run has its own in it")
    parser.add_argument("--networks", nargs="+", default=["RESNET50_3D", "RESNET50_3D_GCN_X5"], metavar="NAME",
                        help="the first is what the others are compared with [RESNET50_3D RESNET50_3D_GCN_X5]")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds 1 to N of each network [3]")
    parser.add_argument("--only-report", action="store_true", help="train nothing; the table of what is finished")
    words = list(sys.argv[1:] if argv is None else argv)
    own = words.index("--") if "--" in words else len(words)  # argparse would end the list of networks elsewhere
    options = parser.parse_args(words[:own])
    options.training = words[own + 1:]
    return options


def plan(options: argparse.Namespace) -> List[Trial]:
    """All runs, in their order. ValueError for what cannot be studied."""
    add_quarters()
    names = [find_network(name).name for name in options.networks]
    if len(set(names)) < len(names) or options.seeds < 1:
        raise ValueError("--networks takes different names, --seeds 1 or more")
    taken = sorted(set(typed_options(options.training)) & set(OURS))
    if taken:
        raise ValueError("--%s: every run of a study has its own; leave it out behind --" % taken[0].replace("_", "-"))
    return [Trial(name, seed, Path(options.output) / ("%s_seed-%d" % (name.lower(), seed)))
            for seed in range(1, options.seeds + 1) for name in names]


def typed_options(training: Sequence[str]) -> Dict[str, Any]:
    """Options of train_model.py by field, as JSON gives them back."""
    return dict(json.loads(json.dumps(parse_options(training)[0])))


def check_same(trial: Trial, result: Dict[str, Any], wanted: Dict[str, Any]) -> None:
    """ValueError where a finished run had other options than are wanted now, by field."""
    for name, value in wanted.items():
        had = result["config"].get(name)
        if name not in OURS + FREE and had != value and str(had).lower() != str(value).lower():
            raise ValueError("%s was trained with --%s %s, not %s: give another folder, or remove that one"
                             % (trial.folder, name.replace("_", "-"), had, value))


def arguments(trial: Trial, training: Sequence[str]) -> List[str]:
    """What train_model.py is started with: from the run's newest checkpoint, where there is one."""
    return list(training) + ["--network", trial.network, "--random-seed", str(trial.seed), "--resume", "auto",
                             "--model-dir", str(trial.folder.parent), "--task-name", trial.folder.name]


def train(trial: Trial, training: Sequence[str]) -> None:
    """Trains one run to its end. ValueError where train_model.py fails, Stopped where it was asked to stop."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    paths = os.pathsep.join([PROJECT] + [path for path in [os.environ.get("PYTHONPATH")] if path])
    process = subprocess.Popen([sys.executable] + TRAIN + arguments(trial, training),
                               env=dict(os.environ, PYTHONPATH=paths))

    asked: List[int] = []

    def pass_on(number: int, _: Optional[FrameType]) -> None:
        asked.append(number)
        if number == signal.SIGTERM:  # Ctrl-C reaches both of us by itself
            process.send_signal(number)

    handlers = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if trial.folder.is_dir():
        with (trial.folder / "cost.jsonl").open("a", encoding="utf-8") as file:
            seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            file.write(json.dumps({"processor_seconds": round(seconds, 2), "exit_code": code}) + "\n")
    if asked or code in (0, INTERRUPTED) and trial.result() is None:
        raise Stopped
    if code:
        raise ValueError("%s, seed %d: train_model.py ended with exit code %d; what it says stands above and in %s"
                         % (trial.network, trial.seed, code, trial.folder / "train.log"))


def finished(trials: Sequence[Trial], training: Sequence[str]) -> List[Dict[str, Any]]:
    """Results of all finished runs, all trained alike, with seed, folder and processor seconds. ValueError where one
    was not.
    """
    rows: List[Dict[str, Any]] = []
    for trial in trials:
        result = trial.result()
        if result is not None:
            check_same(trial, result, rows[0]["config"] if rows else typed_options(training))
            rows.append(dict(result, seed=trial.seed, folder=str(trial.folder),
                             processor_seconds=trial.processor_seconds()))
    return rows


def study(options: argparse.Namespace) -> None:
    """Trains what is not finished, in turns, and reports. ValueError for what the user can mend, Stopped."""
    trials = plan(options)
    finished(trials, options.training)
    for number, trial in enumerate(trials, 1):
        if trial.result() is None and not options.only_report:
            print("\n== run %d of %d: %s, seed %d" % (number, len(trials), trial.network, trial.seed), flush=True)
            train(trial, options.training)
    rows = finished(trials, options.training)
    if not rows:
        raise ValueError("%s: no run of this study is finished yet" % options.output)
    content = json.dumps(report(rows, options.output), indent=2) + "\n"
    write_atomically(content.encode("utf-8"), Path(options.output) / "study.json")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line; the exit code: 0 done, 2 something the user can mend, 130 stopped."""
    options = parse(argv)
    try:
        study(options)
    except (ValueError, OSError) as error:
        print("error: %s" % error, file=sys.stderr)
        return USER_ERROR
    except (Stopped, KeyboardInterrupt):
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
