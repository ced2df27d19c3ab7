"""Puts the project's root on the import path, and makes a tiny data set of real video files."""
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from train import environment  # noqa: E402

os.environ.update(environment.missing())  # before any test loads torch
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # as data/clip_readers.py; read once, at the first film

CLASSES = ("down", "left", "up")
VIDEOS = {"train": 6, "test": 3}  # of each class
SMALL_CLIPS = "--dataset folder --crop-size 32 --clip-length 4 --train-frame-interval 3 --val-frame-interval 3".split()


def write_video(path, seed, move=(0, 1), frames=20, size=48):
    """A bright square on noise that moves by `move` pixels a frame."""
    rng = np.random.RandomState(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (size, size))
    assert writer.isOpened()
    still = rng.randint(0, 120, (size, size, 3)).astype(np.uint8)
    x, y = rng.randint(0, size, 2)
    for _ in range(frames):
        frame = still.copy()
        frame[y:y + 12, x:x + 12] = 250
        writer.write(frame)
        x, y = (x + move[0]) % size, (y + move[1]) % size
    writer.release()


@pytest.fixture(scope="session")
def tiny_videos(tmp_path_factory):
    """Root of a data set for `--dataset folder`: three classes that differ in motion."""
    root = tmp_path_factory.mktemp("tiny")
    for number, (name, move) in enumerate(zip(CLASSES, ((0, 2), (-2, 0), (0, -2)))):
        for part, count in VIDEOS.items():
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                write_video(folder / ("v%d.avi" % i), 100 * number + i + (50 if part == "test" else 0), move)
    return root
