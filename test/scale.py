"""A long list: what its start costs, what it weighs in a loader process, and what a clip costs, beside a short one.

    python test/scale.py --rows 1000000      -> a table, as in benchmarks/scale.md

Every row is a path of its own: links to copies of one test film, below a temporary folder that is removed in the end.
"""
import argparse
import multiprocessing
import os
import pickle
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.streams import ClipGeometry, ClipStreams, Share  # noqa: E402
from dataset.examine import examine  # noqa: E402
from dataset.index import index_path, line_of  # noqa: E402
from dataset.specs import find_dataset, load_videos  # noqa: E402

FILMS, FILM = ROOT / "test" / "unit" / "films", "mpeg4_gop12.avi"
CLASSES, LINKS = 400, 50000  # links to one file that a file system allows, about
BATCH, BATCHES, ROUNDS = 8, 20, 3


def make(root, rows):
    """A tree for `folder` with lists of `rows` training and a tenth as many test rows, and an index of all."""
    names = ["class_%03d" % number for number in range(CLASSES)]
    for name in names:
        os.makedirs(os.path.join(root, "videos", name))
    record, source, paths = examine(str(FILMS), FILM, "video"), "", []
    with open(index_path(root), "wb") as index:
        for row in range(rows):
            path = "%s/video_%07d.avi" % (names[row % CLASSES], row)
            full = os.path.join(root, "videos", path)
            if row % LINKS:
                os.link(source, full)
            else:
                shutil.copy2(str(FILMS / FILM), full)
                source = full
                record = record._replace(facts=record.facts._replace(mtime_ns=os.stat(full).st_mtime_ns))
            index.write(line_of(record._replace(path="videos/" + path)))
            paths.append("%s %d\n" % (path, row % CLASSES))
    for name, lines in (("classes.txt", (name + "\n" for name in names)), ("train.txt", paths),
                        ("test.txt", paths[::10])):
        with open(os.path.join(root, name), "w") as file:
            file.writelines(lines)


def start(root):
    """(seconds of this process on a core, lists)"""
    began = time.process_time()
    videos = load_videos(find_dataset("folder"), root)
    return time.process_time() - began, videos


def private_mib():
    """Memory that each loader process has for itself alone, changed pages of the list included."""
    sizes = []
    for process in multiprocessing.active_children():
        with open("/proc/%d/smaps_rollup" % process.pid) as file:
            sizes += [sum(int(line.split()[1]) for line in file if line.startswith(("Private_", "Swap:"))) / 1024]
    return max(sizes)


def streams_of(videos, workers):
    return ClipStreams(videos.train, videos.test, ClipGeometry(8, 8, 8, 64, (64, 80), 72),
                       Share(0, 1, BATCH, BATCH, workers, False), 1)


def milliseconds(streams, epoch, batches=BATCHES):
    """A clip's on a core, batches in a row; without loader processes."""
    steps = iter(streams.training(epoch, 0, batches))
    next(steps)  # the epoch's order is drawn
    began = time.perf_counter()
    for _ in steps:
        pass
    return 1000 * (time.perf_counter() - began) / (batches - 1) / BATCH


def columns_of(root, size):
    """Texts of one size, and its streams."""
    with_index, videos = start(root)
    assert videos.train.num_known == size
    os.rename(index_path(root), index_path(root) + ".off")
    without, _ = start(root)
    worker, memory = streams_of(videos, 1), []
    for epoch in range(3):
        milliseconds(worker, epoch, 3 * BATCHES)
        memory.append("%.0f" % private_mib())
    worker.close()
    weight = len(pickle.dumps(videos.train, protocol=4)) / size
    return ["%.2f" % without, "%.2f" % with_index, "%.0f" % weight, ", ".join(memory)], streams_of(videos, 0)


def measure(folder, rows):
    """Prints the table."""
    texts, streams = {}, {}
    for size in (1000, rows):
        root = os.path.join(folder, str(size))
        make(root, size)
        texts[size], streams[size] = columns_of(root, size)
    times = {size: [] for size in streams}
    for epoch in range(ROUNDS):
        for size in streams:
            times[size].append(milliseconds(streams[size], epoch))
    names = ("start without index, CPU s", "start with index, CPU s", "bytes a row",
             "a loader process's own MiB after %d, %d, %d clips" % tuple(3 * BATCHES * BATCH * n for n in (1, 2, 3)),
             "ms a clip")
    print("| rows | %s |" % " | ".join("{:,}".format(size) for size in texts))
    print("| --- | --- | --- |")
    for number, name in enumerate(names):
        cells = [(texts[size] + ["%.2f" % statistics.median(times[size])])[number] for size in texts]
        print("| %s | %s |" % (name, " | ".join(cells)))
    print("most memory of this process: %.0f MiB" % (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000000)
    with tempfile.TemporaryDirectory(prefix="scale_") as place:
        measure(place, parser.parse_args().rows)
