"""Disks that fail under a run: full, read-only, immutable, an error in the middle of a file. Tests of test/soak.py."""
import errno
import os
import resource
import subprocess

from soak_run import TASK, Skipped, check, kill_all, wait_for

from train.checkpoint import Checkpoints


def mount(*arguments):
    if os.geteuid() or subprocess.call(["mount", *map(str, arguments)], stderr=subprocess.DEVNULL):
        raise Skipped("needs root and mount")


def unsaved(runs, folder, words, mended):
    """A run whose saves fail goes on to its end, says why, leaves what was there, and is resumed once it is mended."""
    code = runs.finish(folder, code="bad")
    said = runs.said(folder)
    check("not saved, older checkpoints are untouched" in said and words in said and "Traceback" not in said,
          "exit code %d, but said: %s" % (code, said[-600:]))
    left = Checkpoints(folder / TASK / "checkpoints", TASK).load(True).content["position"]["step"]
    mended()
    runs.finish(folder)
    runs.compare(folder)
    return "exit code %d, step %d still loads, resumed exactly" % (code, left)


def disk_full(runs, options):
    size = max(p.stat().st_size for p in (runs.whole()[0] / TASK / "checkpoints").iterdir())
    folder = runs.root / "small-disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=%d" % (1.7 * size), "tmpfs", folder)
    try:
        return unsaved(runs, folder, "no room", lambda: mount("-o", "remount,size=%d" % (6 * size), folder))
    finally:
        subprocess.call(["umount", str(folder)])


def begun(runs, folder):
    """A run that has written its first checkpoint and was then killed."""
    child = runs.start(folder)
    wait_for(lambda: (folder / TASK / "checkpoints" / "newest").exists(), 900, "the first checkpoint")
    kill_all(child)
    return folder / TASK / "checkpoints"


def read_only_folder(runs, options):
    folder = runs.root / "read-only"
    place = begun(runs, folder)
    mount("--bind", place, place)
    try:
        mount("-o", "remount,ro,bind", place)
        return unsaved(runs, folder, os.strerror(errno.EROFS), lambda: mount("-o", "remount,rw,bind", place))
    finally:
        subprocess.call(["umount", str(place)])


def immutable_folder(runs, options):
    folder = runs.root / "immutable"
    place = begun(runs, folder)
    if subprocess.call(["chattr", "+i", str(place)], stderr=subprocess.DEVNULL):
        raise Skipped("no chattr +i on this file system")
    try:
        return unsaved(runs, folder, os.strerror(errno.EPERM), lambda: subprocess.check_call(["chattr", "-i", place]))
    finally:
        subprocess.call(["chattr", "-i", str(place)])


def error_while_writing(runs, options):
    """Files above a size cannot be written: the error comes in the middle of a checkpoint."""
    folder = runs.root / "limited"
    begun(runs, folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50 << 20, limits[1]))
    return unsaved(runs, folder, "no room", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
