"""Whether a long run of the loader grows: resident memory and open files of the main process and its workers."""

import os
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from data.clip_dataset import ClipDataset
from data.loaders import TrainSampler, train_loader
from data.transforms import TrainAugmentation
from data.video_list import VideoList
from tools.timing import processes

EPOCHS, BATCH_SIZE, WORKERS, LOOKS = 3, 4, 2, 100
WARM_UP = 0.1  # of the run: caches of libraries fill


def resources() -> Tuple[float, int]:
    """(resident MiB, open files) of this process and its children, as Linux says."""
    pages, files = 0, 0
    for pid in processes():
        with open("/proc/%d/statm" % pid, encoding="ascii") as file:
            pages += int(file.read().split()[1])
        files += len(os.listdir("/proc/%d/fd" % pid))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2 ** 20, files


def growth(values: Sequence[float]) -> float:
    """The rise of the line through the values from the first to the last, as a share of their mean."""
    slope = np.polyfit(np.arange(len(values)), values, 1)[0] if len(values) > 1 else 0.0
    return float(slope * (len(values) - 1) / np.mean(values))


def soak(films: VideoList, clips: int) -> Dict[str, Any]:
    """Three epochs with `clips` training clips in all, two workers -> how memory and open files grew over them.

    The list's rows are repeated as often as it takes. OSError where there is no /proc.
    """
    rows = [row % len(films) for row in range(clips // EPOCHS)]
    videos = VideoList(films.root, [films.relative(row) for row in rows], [0] * len(rows), films.kind,
                       [films.num_frames(row) or 0 for row in rows])
    sampler = TrainSampler(len(videos), BATCH_SIZE, 0, 1, 1)
    loader = train_loader(ClipDataset(videos, 8, 8, TrainAugmentation(), 1, True), sampler, WORKERS, False)
    every = max(1, EPOCHS * len(sampler) // LOOKS)
    looks: List[Tuple[float, int]] = []
    for epoch in range(EPOCHS):
        sampler.set_position(epoch)
        for number, _ in enumerate(loader):
            if (epoch * len(sampler) + number) % every == 0:
                looks.append(resources())
    loader.close()
    resident, files = zip(*looks[int(WARM_UP * len(looks)):])
    return {"case": "soak", "clips": EPOCHS * len(sampler) * BATCH_SIZE, "epochs": EPOCHS,
            "resident_mib": float(np.mean(resident)), "resident_growth": growth(resident),
            "open_files": float(np.mean(files)), "open_files_growth": growth(files)}


def sentence(row: Dict[str, Any]) -> str:
    """The row for people."""
    return ("%(clips)d clips in %(epochs)d epochs: %(resident_mib).0f MiB resident, %(open_files).0f open files" % row
            + ", growth over the run %.2f %% and %.2f %%" % (
                100 * row["resident_growth"], 100 * row["open_files_growth"]))
