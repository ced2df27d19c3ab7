"""The long fault tests; test/soak.sh starts them. Each is a function that returns what it did, or raises Failed."""
import argparse
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from conftest import write_video
from soak_disks import disk_full, error_while_writing, immutable_folder, read_only_folder
from soak_nodes import node_away
from soak_resume import other_processes, other_workers
from soak_run import ROOT, TASK, Failed, Skipped, Trainings, check, children, kill_all, wait_for

from train.checkpoint import Checkpoints


def make_videos(root):
    """A data set of three classes that differ in motion; five steps of four clips are an epoch."""
    for part, count in (("train", 7), ("test", 3)):
        for number, (name, move) in enumerate((("down", (0, 2)), ("left", (-2, 0)), ("up", (0, -2)))):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                write_video(folder / ("v%d.avi" % i), 100 * number + i + (50 if part == "test" else 0), move)
    return root


def kills(runs, options, processes):
    """kill -9 at random moments, resumed each time."""
    _, seconds = runs.whole(processes)
    done, rounds, places = 0, 0, Counter()
    while done < options.kills:
        rounds += 1
        folder = runs.root / ("killed-%d-%d" % (processes, rounds))
        while done < options.kills:
            runs.forget_places()
            child = runs.start(folder, processes)
            try:
                child.wait(runs.rng.uniform(0.2 * seconds, 0.9 * seconds))
                check(child.returncode == 0, "exit code %s: %s" % (child.returncode, runs.said(folder)[-600:]))
                break
            except subprocess.TimeoutExpired:
                done += 1
                places[runs.place()] += processes > 1
            finally:
                kill_all(child)
        runs.finish(folder, processes)
        runs.compare(folder, processes)
    known = ", ".join("%s %d" % row for row in sorted(places.items()) if row[1])
    return "%d kills in %d runs%s" % (done, rounds, known and ": " + known)


def kill_one_process(runs, options):
    return kills(runs, options, 1)


def kill_two_processes(runs, options):
    return kills(runs, options, 2)


def kill_inside_a_save(runs, options):
    """A real checkpoint saved again and again, killed at random moments of it."""
    source = runs.whole()[0] / TASK / "checkpoints"
    saved = Checkpoints(source, TASK).load(True)
    content, state = dict(saved.content), saved.content["state_dict"]
    folder, found = runs.root / "saves", [0, 0]
    checkpoints = Checkpoints(folder, TASK, keep=2)
    begin = time.time()
    for epoch in (1, 2):
        checkpoints.save(dict(content, epoch=epoch), state)
    seconds = (time.time() - begin) / 2
    for number in range(options.saves):
        child = os.fork()
        if not child:
            checkpoints.save(dict(content, epoch=3 + number), state)
            os._exit(0)
        time.sleep(runs.rng.uniform(0, 1.1 * seconds))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        epoch = checkpoints.load(True).content["epoch"]
        check(epoch in (3 + number, 2 + number), "epoch %d loads after a kill in saving %d" % (epoch, 3 + number))
        found[epoch == 3 + number] += 1
        checkpoints.clean()
        check(not list(folder.glob(".*")), "leftovers")
        checkpoints.save(dict(content, epoch=3 + number), state)
    shutil.rmtree(str(folder))
    return "%d kills: the one before loads %d times, the newest %d times" % (options.saves, *found)


def flipped_and_cut(runs, options):
    """One bit of a real checkpoint flipped, or one byte cut: refused by name, the one before is taken."""
    folder = runs.root / "flips"
    shutil.copytree(str(runs.whole()[0] / TASK / "checkpoints"), str(folder))
    checkpoints = Checkpoints(folder, TASK)
    victim, before = checkpoints.newest_first()[:2]
    whole = victim.read_bytes()
    for number in range(options.flips):
        place = runs.rng.randrange(len(whole))
        with open(str(victim), "r+b") as file:
            file.seek(place)
            file.write(bytes([whole[place] ^ 1 << runs.rng.randrange(8)]) if number % 2 else whole[place + 1:])
            file.truncate() if not number % 2 else None
        try:
            checkpoints.load(str(victim))
        except ValueError as error:
            check(victim.name in str(error), "refused without its name: %s" % error)
        else:
            raise Failed("byte %d changed, and it loads" % place)
        if number < 3:
            check(checkpoints.load(True).path == before, "the one before is not taken")
        victim.write_bytes(whole)
    check(checkpoints.load(True).path == victim, "the sound file is refused")
    shutil.rmtree(str(folder))
    return "%d changes of %d MB" % (options.flips, len(whole) >> 20)


def signal_then_resume(runs, options):
    """A signal to the only process, to one of two, or to their launcher: saved, code 0 within 30 s, resumed exactly."""
    found = []
    for name, processes, number in (("alone", 1, signal.SIGTERM), ("one-of-two", 2, signal.SIGTERM),
                                    ("launcher", 2, signal.SIGUSR1)):
        folder = runs.root / ("signal-" + name)
        child = runs.start(folder, processes)
        wait_for(lambda: (folder / TASK / "checkpoints" / "newest").exists(), 900, "the first checkpoint")  # noqa: B023
        begin = time.time()
        os.kill(children(child.pid)[-1] if name == "one-of-two" else child.pid, number)
        check(child.wait(600) == 0 and "with --resume goes on" in runs.said(folder), "exit code %d" % child.returncode)
        found.append("%s %.1f s" % (name, time.time() - begin))
        check(time.time() - begin < options.stop_within, found[-1])
        runs.finish(folder, processes)
        runs.compare(folder, processes)
    return "ended after: " + ", ".join(found)


def rank_killed_under_torchrun(runs, options):
    """The launcher starts all again; they come back by themselves."""
    folder = runs.root / "restarted"
    child = runs.start(folder, 2)
    wait_for(lambda: (folder / TASK / "checkpoints" / "newest").exists(), 900, "the first checkpoint")
    os.kill(children(child.pid)[-1], signal.SIGKILL)
    check(child.wait(1800) == 0, "exit code %s: %s" % (child.returncode, runs.said(folder)[-600:]))
    check("resumed from" in runs.said(folder), "nothing was resumed")
    runs.compare(folder, 2)
    return "one of two killed once"


def reader_killed(runs, options):
    folder = runs.root / "reader"
    child = runs.start(folder)
    wait_for(lambda: "waiting for data" in runs.said(folder) or "saved" in runs.said(folder), 900, "the first steps")
    begin = time.time()
    os.kill(children(child.pid)[0], signal.SIGKILL)
    check(child.wait(120) == 2 and "a process that reads videos has died" in runs.said(folder),
          "exit code %s: %s" % (child.returncode, runs.said(folder)[-600:]))
    return "named after %.1f s" % (time.time() - begin)


def small_shared_memory(runs, options):
    """64 kB of /dev/shm: the run does not need them, or says within 60 s of its start what is missing."""
    folder = runs.root / "shm"
    mounted = "mount -t tmpfs -o size=64k tmpfs /dev/shm && exec \"$@\""
    if os.geteuid() or subprocess.call(["unshare", "-m", "sh", "-c", mounted, "sh", "true"]):
        raise Skipped("needs root and unshare")
    code = runs.finish(folder, code=None, before=("unshare", "-m", "sh", "-c", mounted, "sh"))
    if not code:
        runs.compare(folder)
        return "not needed: the run is exact"
    check("/dev/shm" in runs.said(folder), runs.said(folder)[-600:])
    return "named, exit code %d" % code


def not_a_number(runs, options):
    folder = runs.root / "nan"
    runs.finish(folder, 1, "--lr-base", "1e30", "--max-bad-steps", "2", code=2)
    check((folder / TASK / "bad_steps.json").exists() and "for 2 steps in a row" in runs.said(folder), "no explanation")
    return "stopped after two, with bad_steps.json"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def hostile_files(runs, options):
    """A checkpoint that would run code, in three formats; then the unit tests of all other hostile files."""
    trace = runs.root / "it-ran"
    for name, write in (("zip", torch.save), ("plain", lambda obj, path: Path(path).write_bytes(pickle.dumps(obj)))):
        path = runs.root / (name + ".pth")
        write({"schema": 1, "state_dict": Evil(str(trace))}, str(path))
        runs.finish(runs.root / "hostile", 1, "--resume", str(path), code=2)
        check(path.name in runs.said(runs.root / "hostile") and not trace.exists(), "it ran, or is not named")
    subprocess.check_call([sys.executable, "-m", "pytest", "-q", "test/unit/network/test_safe_load.py",
                           "test/unit/dataset/test_lists.py", "test/unit/data/test_video_list.py"], cwd=str(ROOT))
    return "refused, nothing ran"


def toys(runs, options):
    """Eight processes, then four, then one; signals and kills among two, on a toy network."""
    subprocess.check_call([sys.executable, "-m", "pytest", "-q", "test/unit/test_killed_runs.py"], cwd=str(ROOT))
    return "as test/unit/test_killed_runs.py"


def two_machines(runs, options):
    """Cables cut, ranks and machines frozen, on the smallest run."""
    check(subprocess.call([sys.executable, "test/two_machines.py"], cwd=str(ROOT)) == 0, "see above")
    return "as test/two_machines.py"


TESTS = (kill_one_process, kill_two_processes, kill_inside_a_save, flipped_and_cut, disk_full, read_only_folder,
         immutable_folder, error_while_writing, signal_then_resume, rank_killed_under_torchrun, other_processes,
         other_workers, reader_killed, small_shared_memory, not_a_number, hostile_files, toys, two_machines,
         node_away)


def main():
    names = {test.__name__.replace("_", "-"): test for test in TESTS}
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("kills", 20), ("saves", 50), ("flips", 100), ("steps", 12), ("every", 2), ("stop-within", 30)):
        parser.add_argument("--" + name, type=int, default=count)
    parser.add_argument("tests", nargs="*", help="some of " + " ".join(names))
    options = parser.parse_args()
    unknown = [name for name in options.tests if name not in names]
    if unknown:
        parser.error("no test %s; there are %s" % (unknown[0], ", ".join(names)))
    rows = []
    with tempfile.TemporaryDirectory(prefix="soak-") as root:
        runs = Trainings(root, options.steps, options.every, make_videos(Path(root) / "videos"))
        for name in options.tests or names:
            begin = time.time()
            try:
                said, verdict = names[name](runs, options), "pass"
            except Skipped as reason:
                said, verdict = str(reason), "skip"
            except Exception as error:  # whatever it is, the table says it
                said, verdict = "%s: %s" % (type(error).__name__, error), "fail"
            rows.append((name, said.split("\n")[0][:130], time.time() - begin, verdict))
            print("%s: %s, %s, %.0f s" % (name, verdict, said, rows[-1][2]), flush=True)
    print("\n" + "\n".join("%-28s %-132s %6.0f s  %s" % row for row in rows))
    return int(any(row[3] == "fail" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
