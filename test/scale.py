"""A long list: what its start costs, what it weighs in a loader process, and what a clip costs, beside a short one.

    python test/scale.py --rows 1000000      -> a table, as in benchmarks/scale.md
    python test/scale.py --rank 10000000     -> what list, sampler and resume position weigh in a rank's own memory

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
from array import array
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from data.clip_dataset import ClipDataset  # noqa: E402
from data.loaders import TrainSampler  # noqa: E402
from data.streams import ClipGeometry, ClipStreams, Share  # noqa: E402
from data.transforms import TrainAugmentation  # noqa: E402
from data.video_list import VideoFacts, VideoList  # noqa: E402
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


def own_mb():
    """Memory of this process that is no file's, shared memory included, in MB."""
    with open("/proc/self/status") as file:
        kinds = dict(line.split(":") for line in file if line.startswith(("RssAnon", "RssShmem")))
    return sum(int(size.split()[0]) for size in kinds.values()) * 1024 / 1e6


def learn_all(videos, rows):
    """Facts of every row, five key frames each, as an index gives them."""
    videos.learn(0, VideoFacts(250, 1 << 20, 1 << 60, (24, 48, 72, 96, 120)))
    facts = videos._facts
    for values in (facts.num_frames, facts.sizes, facts.times, facts.lengths):
        values[:] = values[0]
    facts.starts[:] = 5 * np.arange(rows)
    facts.key_frames = array("i", facts.key_frames * rows)


def rank(rows):
    """Prints what a list of `rows` with an index, its sampler and a position in the middle of an epoch weigh."""
    before = own_mb()
    videos = VideoList("/data", ["class_%03d/video_%08d.avi" % (row % CLASSES, row) for row in range(rows)],
                       np.arange(rows) % CLASSES)
    learn_all(videos, rows)
    videos.rest()
    print("list and index: %.1f MB in memory" % (own_mb() - before), flush=True)
    sampler = TrainSampler(rows, 16, 3, 8, 1)
    sampler.set_position(2, rows // 2 // 128 * 128)
    batches = iter(sampler)
    row = next(batches)[0][1]
    print("with the sampler, from clip %d of epoch 3 on: %.1f MB; first comes %s"
          % (sampler.position.start_sample, own_mb() - before, videos.relative(row)))
    dataset = ClipDataset(videos, 8, 8, TrainAugmentation(32, (36, 40)), 1, training=True, order=sampler.order)
    dataset._frame_counts.fill_(1)  # as if every video had been met
    print("with the frame counts that the loader's processes share: %.1f MB" % (own_mb() - before))


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
    parser.add_argument("--rank", type=int, metavar="ROWS")
    options = parser.parse_args()
    if options.rank:
        rank(options.rank)
        sys.exit()
    with tempfile.TemporaryDirectory(prefix="scale_") as place:
        measure(place, options.rows)
