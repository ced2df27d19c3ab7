"""The input pipeline against the floor of its decoder, measured in the same run: `python -m tools.benchmark input`.

Floors: a fresh OpenCV open, grab to the last frame needed, retrieve the eight; cv2.imdecode of the eight files' bytes.
Each case is a loader with one worker, which shares its core with the main process; `workers_2` has two on two cores.
"""

import argparse
import itertools
import os
import statistics
import tempfile
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch

from data.clip_dataset import ClipDataset
from data.clip_readers import RawFrames, VideoFile
from data.clip_sampling import even_clip, random_clip
from data.device_transforms import DeviceTransform
from data.loaders import train_loader
from data.packed_index import ROW, Description, read_index
from data.packed_store import PackedVideos
from data.randomness import random_state
from data.transforms import EvalTransform, TrainAugmentation
from data.video_list import VideoList
from dataset import reencode
from dataset.examine import examine
from dataset.frames import FrameTask, count_frames, write_frames
from dataset.index import stamp_of
from dataset.packing import Source, pack
from tools import benchmark_films, benchmark_soak
from tools.timing import interleave, markdown, paired_ratio, processor_seconds, write_json

CLIP_LENGTH, INTERVAL, BATCH_SIZE, SEED = 8, 8, 4, 1
Pass = Callable[[], None]  # all clips of the list once, by draws of its own each time


class Case(NamedTuple):
    """What is timed, how many times as fast as what it must be."""

    name: str
    source: str  # of SOURCES
    of: str  # of DENOMINATORS
    demand: float
    training: bool = True
    to_float: bool = False  # with the device's part, on the processor
    workers: int = 1
    cores: int = 1


CASES = (
    Case("video_train", "video", "floor", 0.75),
    Case("rawframes_train", "rawframes", "jpeg_floor", 0.5),
    Case("packed_train", "packed", "jpeg_floor", 0.6),
    Case("video_train_cpu", "video", "floor", 0.4, to_float=True),
    Case("video_eval", "video", "floor", 0.75, training=False),
    Case("reencoded_train", "reencoded", "workers_1", 1.2),
    Case("workers_2", "video", "workers_1", 1.8, workers=2, cores=2),
)


def video_source(films: Sequence[str], folder: str) -> VideoList:
    """A row for each film, its frames counted."""
    counts = [VideoFile(film).num_frames for film in films]
    return VideoList("/", [os.path.abspath(film).lstrip("/") for film in films], [0] * len(films), "video", counts)


def rawframes_source(films: Sequence[str], folder: str) -> VideoList:
    """The same of the films' frames as JPEG files below `folder`."""
    names = ["frames-%d" % number for number in range(len(films))]
    for film, name in zip(films, names):
        write_frames(FrameTask(film, os.path.join(folder, name), True, "", 95, 0))
    counts = [count_frames(os.path.join(folder, name)) for name in names]
    return VideoList(folder, names, [0] * len(names), "rawframes", counts)


def reencoded_source(films: Sequence[str], folder: str) -> VideoList:
    """The same written anew with dense key frames, with what the index knows of them."""
    names = ["reencoded-%d.mp4" % number for number in range(len(films))]
    known = [examine("/", os.path.abspath(film).lstrip("/"), "video") for film in films]
    for film, record, name in zip(films, known, names):
        reencode.write_film(reencode.Film(film, record.facts.num_frames, record.fps, os.path.join(folder, name),
                                          reencode.USUAL))
    videos = VideoList(folder, names, [0] * len(names), "video", [record.facts.num_frames for record in known])
    for row, name in enumerate(names):
        videos.learn(row, examine(folder, name, "video").facts)
    return videos


def packed_source(films: Sequence[str], folder: str) -> VideoList:
    """The same of a packed store of the films."""
    store, names = os.path.join(folder, "store"), [os.fsencode(os.path.abspath(film).lstrip("/")) for film in films]
    rows = np.zeros(len(films), ROW)
    rows["video"] = np.arange(len(films))
    stamps = np.array([stamp_of(film, "video") for film in films])
    source = Source(Description("films", ["film"], 256, 90, "/", "video", {}), names, [(0, None)] * len(films),
                    stamps[:, 0], stamps[:, 1], {1: (rows, rows[:0])})
    for _ in pack(source, store, 1 << 30, 1):
        pass
    return PackedVideos(store, read_index(store), 1, 0)


SOURCES = {"video": video_source, "rawframes": rawframes_source, "packed": packed_source, "reencoded": reencoded_source}
AVAILABLE = sorted(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def pin(cores: int) -> None:
    """The main process, and workers that it starts from now on, on that many cores, where the system can do it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, AVAILABLE[:cores])


class Order:
    """Batches of (epoch, row) for one pass after the other, each with draws of its own."""

    def __init__(self, num_rows: int, clips: int, batch_size: int = BATCH_SIZE) -> None:
        self.batch_size = batch_size
        self._num_rows, self._clips, self._epoch = num_rows, clips, 0

    def __len__(self) -> int:
        return self._clips // self.batch_size

    def __iter__(self) -> Iterator[List[Tuple[int, int]]]:
        ids = [(self._epoch + place // self._num_rows, place % self._num_rows) for place in range(self._clips)]
        self._epoch = ids[-1][0] + 1
        return (ids[start:start + self.batch_size] for start in range(0, len(self) * self.batch_size, self.batch_size))


def loader_pass(case: Case, videos: VideoList, clips: int) -> Pass:
    """All clips through a loader."""
    transform = TrainAugmentation() if case.training else EvalTransform()
    dataset = ClipDataset(videos, CLIP_LENGTH, INTERVAL, transform, SEED, case.training)
    loader = train_loader(dataset, Order(len(videos), clips), case.workers, False)
    on_processor = DeviceTransform()

    def run() -> None:
        pin(case.cores)
        for batch in loader:
            if case.to_float:
                on_processor(batch)
    return run


def wanted(videos: VideoList, clips: int, training: bool) -> Iterator[List[Tuple[str, List[int]]]]:
    """For each pass the (path, frame indices) of all clips: those that the loader draws."""
    order = Order(len(videos), clips)
    while True:
        jobs = []
        for epoch, row in itertools.chain.from_iterable(order):
            count = videos.num_frames(row) or 0
            indices = (random_clip(count, CLIP_LENGTH, INTERVAL, random_state(SEED, epoch, row, "clip")) if training
                       else even_clip(count, CLIP_LENGTH, INTERVAL))
            jobs.append((videos.path(row), indices))
        yield jobs


def video_floor(case: Case, videos: VideoList, clips: int) -> Pass:
    """What decoding alone takes: on one thread, as the reader."""
    threads = [cv2.CAP_PROP_N_THREADS, 1] if hasattr(cv2, "CAP_PROP_N_THREADS") else []
    passes = wanted(videos, clips, case.training)

    def run() -> None:
        pin(1)
        for path, indices in next(passes):
            capture, places = cv2.VideoCapture(path, cv2.CAP_FFMPEG, threads), set(indices)
            for index in range(max(indices) + 1):
                capture.grab()
                if index in places:
                    capture.retrieve()
            capture.release()
    return run


def jpeg_floor(case: Case, videos: VideoList, clips: int) -> Pass:
    """What decoding alone takes, the files' bytes being in memory."""
    content: Dict[str, List[np.ndarray]] = {}
    for row in range(len(videos)):
        path, count = videos.path(row), videos.num_frames(row) or 0
        template = os.path.join(path, RawFrames(path, count).template)
        content[path] = [np.fromfile(template.format(number + 1), np.uint8) for number in range(count)]
    passes = wanted(videos, clips, case.training)

    def run() -> None:
        pin(1)
        for path, indices in next(passes):
            for index in indices:
                cv2.imdecode(content[path][index], cv2.IMREAD_COLOR)
    return run


def one_worker(case: Case, videos: VideoList, clips: int) -> Pass:
    """The case with a single worker."""
    return loader_pass(case._replace(workers=1), videos, clips)


# name -> (function, source of its clips)
DENOMINATORS = {"floor": (video_floor, "video"), "jpeg_floor": (jpeg_floor, "rawframes"),
                "workers_1": (one_worker, "video")}


def measure(cases: Sequence[Case], films: Sequence[str], folder: str, clips: int, rounds: int,
            clock: Optional[Callable[[], float]] = None) -> Tuple[List[Dict[str, Any]], Dict[str, float]]:
    """(a row of each case, clips a second of each denominator)."""
    sources = {case.source for case in cases} | {DENOMINATORS[case.of][1] for case in cases}
    lists = {source: SOURCES[source](films, folder) for source in sorted(sources)}
    variants: Dict[str, Pass] = {}
    for case in cases:
        build, source = DENOMINATORS[case.of]
        variants.setdefault(_denominator(case), build(case, lists[source], clips))
        variants[case.name] = loader_pass(case, lists[case.source], clips)
    interleave(variants, 1)  # starts the workers
    seconds = interleave(variants, rounds, clock=clock)
    speeds = {name: clips / statistics.median(times) for name, times in seconds.items()}
    rows = [{"case": case.name, "clips_per_second": speeds.pop(case.name),
             "ratio": paired_ratio(seconds[_denominator(case)], seconds[case.name]), "of": case.of} for case in cases]
    return rows, speeds


def _denominator(case: Case) -> str:
    return "%s of %s" % (case.of, "training" if case.training else "evaluation")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `input`."""
    parser.add_argument("--data", help="a folder with video files of your own; without it films are made")
    parser.add_argument("--films", type=int, default=8, help="how many films to make, or to take from --data [8]")
    parser.add_argument("--b-frames", type=int, default=0, help="between two others, in the films that are made [0]")
    parser.add_argument("--frames", type=int, default=benchmark_films.FRAMES, help="of each film that is made [180]")
    parser.add_argument("--clips", type=int, default=192, help="clips of each case in a round [192]")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds [5]")
    parser.add_argument("--cases", help="of %s [all]" % ", ".join(case.name for case in CASES))
    parser.add_argument("--processor-time", action="store_true",
                        help="count time on processors: for a machine that is busy, though not for workers_2")
    parser.add_argument("--soak", type=int, metavar="CLIPS", help="instead: memory and open files over that many clips")
    parser.add_argument("--json", help="also write the rows there")


def run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """Measures, prints the table, writes the JSON."""
    names = options.cases.split(",") if options.cases else [case.name for case in CASES]
    unknown = set(names) - {case.name for case in CASES}
    least = min(options.films, options.frames, options.rounds, options.clips // BATCH_SIZE)
    if unknown or least < 1 or options.b_frames < 0:
        parser.error("--cases takes %s; --clips at least %d, --films, --frames and --rounds 1" % (
            ", ".join(case.name for case in CASES), BATCH_SIZE))
    cores = len(AVAILABLE)
    cases = [case for case in CASES if case.name in names and case.cores <= cores
             and (case.source != "reencoded" or reencode.av)]
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            films = benchmark_films.films_for(options.data, options.films, folder, options.b_frames, options.frames)
            if options.soak:
                rows = [benchmark_soak.soak(video_source(films, folder), options.soak)]
                print(benchmark_soak.sentence(rows[0]))
            else:
                rows, floors = measure(cases, films, folder, options.clips, options.rounds,
                                       processor_seconds if options.processor_time else None)
                print(report(films[0], cases, rows, floors))
    except ValueError as error:
        parser.error(str(error))
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
        pin(cores)
    if options.json:
        write_json(options.json, rows)
    return 0


def report(film: str, cases: Sequence[Case], rows: Sequence[Dict[str, Any]], floors: Dict[str, float]) -> str:
    """What was measured on what, and the table."""
    load = ", load %.1f at the end" % os.getloadavg()[0] if hasattr(os, "getloadavg") else ""
    head = "input, films of %s; %d cores, OpenCV %s, torch %s%s" % (
        benchmark_films.coding(film), len(AVAILABLE), cv2.__version__, torch.__version__, load)
    cells = [[name, "%.1f" % speed, "", "", ""] for name, speed in floors.items()]
    cells += [[row["case"], "%.1f" % row["clips_per_second"], "%.2f" % row["ratio"], row["of"], "%.2f" % case.demand]
              for case, row in zip(cases, rows)]
    return head + "\n" + markdown(["case", "clips/s", "ratio", "of", "demanded"], cells)
