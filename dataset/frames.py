"""A video as a folder of JPEG files: its frames, img_00001.jpg on, and the optical flow between them, flow_x_00001.jpg
and flow_y_00001.jpg on (flow 1 leads from frame 1 to frame 2).

Flow as the field stores it: pixels a frame, cut to ±BOUND, 0 at level 128. TV-L1: Zach et al., 2007; DIS: Kroeger
et al., 2016; both are OpenCV's.
"""
import json
import os
import shutil
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import cv2
import numpy as np

from data.clip_readers import UnreadableClip, open_clip
from dataset.examine import FRAME_NAME
from dataset.layouts import VIDEO_ENDINGS
from dataset.progress import say_progress, with_progress
from dataset.workers import run_all

BOUND = 20.0  # pixels
MOST_SECONDS = 7200  # for one video
FLOWS: Dict[str, Callable[[], Any]] = {
    'dis': lambda: cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM),  # type: ignore[attr-defined]
    'tvl1': lambda: cv2.optflow.DualTVL1OpticalFlow_create(),  # type: ignore[attr-defined]
}


class FrameTask(NamedTuple):
    """One video and where its pictures go; `short_side` 0 keeps the size, `flow` '' makes none."""

    video: str
    folder: str
    rgb: bool
    flow: str
    quality: int
    short_side: int


def check_flow(name: str) -> None:
    """ValueError where this OpenCV does not have that flow."""
    if name == 'tvl1' and not hasattr(cv2, 'optflow'):
        raise ValueError('--flow tvl1 needs OpenCV with its extra modules: pip install opencv-contrib-python-headless '
                         'in place of the plain one; or take --flow dis')
    if name == 'dis' and not hasattr(cv2, 'DISOpticalFlow_create'):
        raise ValueError('--flow dis needs OpenCV 4 or later')


def flow_levels(flow: np.ndarray) -> np.ndarray:
    """Flow in pixels, float -> uint8 levels."""
    return np.rint((np.clip(flow, -BOUND, BOUND) + BOUND) * (255 / (2 * BOUND))).astype(np.uint8)


def write_frames(task: FrameTask) -> str:
    """Writes a video's pictures; '' or what is wrong with the video. The folder appears when it is whole; done before,
    it is left as it is.
    """
    if os.path.isdir(task.folder):
        return ''
    part = task.folder + '.part'
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    cv2.setNumThreads(0)
    try:
        _write_all(task, part)
    except UnreadableClip as error:
        shutil.rmtree(part)
        return error.reason
    os.rename(part, task.folder)
    return ''


def _write_all(task: FrameTask, folder: str) -> None:
    reader = open_clip(task.video, 'video')
    method = FLOWS[task.flow]() if task.flow else None
    before: Optional[np.ndarray] = None
    for number, frame in enumerate(reader.frames(range(reader.num_frames)), 1):
        if frame is None:
            raise UnreadableClip(task.video, 'frame %d cannot be decoded to 8-bit colour' % (number - 1))
        frame = _scaled(frame, task.short_side)
        if task.rgb:
            _write(folder, FRAME_NAME % number, frame, task.quality)
        if method is not None:
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            if before is not None:
                levels = flow_levels(method.calc(before, grey, None))
                for axis, name in enumerate(('flow_x', 'flow_y')):
                    _write(folder, '%s_%05d.jpg' % (name, number - 1), levels[:, :, axis], task.quality)
            before = grey


def _scaled(frame: np.ndarray, short_side: int) -> np.ndarray:
    """The frame (H, W, 3) with its short side at `short_side`, never enlarged; a copy."""
    high, wide = frame.shape[:2]
    if not short_side or min(high, wide) <= short_side:
        return frame.copy()
    scale = short_side / min(high, wide)
    return cv2.resize(frame, (int(round(wide * scale)), int(round(high * scale))), interpolation=cv2.INTER_AREA)


def _write(folder: str, name: str, picture: np.ndarray, quality: int) -> None:
    written, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(data.tobytes())


def count_frames(folder: str) -> int:
    """How many frames `write_frames` has written there."""
    return sum(name.startswith('img_') for name in os.listdir(folder))


def _write_safely(task: FrameTask) -> str:
    try:
        return write_frames(task)
    except OSError as error:
        return 'cannot be written: %s' % error


def make_pictures(output: str, chosen: Dict[str, Any], workers: int) -> List[str]:
    """Raw frames and flow of every video; the videos that gave none, with the reason. ValueError where others of other
    options are there.
    """
    folder, stamp = os.path.join(output, 'rawframes'), os.path.join(output, 'rawframes', 'made_with.json')
    os.makedirs(folder, exist_ok=True)
    if os.path.exists(stamp):
        with open(stamp, encoding='utf-8') as file:
            made_with = json.load(file)
        if made_with != chosen:
            raise ValueError('%s holds pictures made with %s; ask for the same, or remove that folder'
                             % (folder, made_with))
    with open(stamp, 'w', encoding='utf-8') as file:
        json.dump(chosen, file)
    tasks = []
    for root, _, names in sorted(os.walk(os.path.join(output, 'videos'))):
        for name in sorted(name for name in names if name.lower().endswith(VIDEO_ENDINGS)):
            video = os.path.join(root, name)
            stem = os.path.splitext(os.path.relpath(video, os.path.join(output, 'videos')))[0]
            tasks.append(FrameTask(video, os.path.join(folder, stem), **chosen))
    failed = []
    results = run_all(_write_safely, tasks, workers, MOST_SECONDS)
    for task, result in with_progress(results, len(tasks), 'turned into pictures', say_progress):
        if result:
            failed.append('%s: %s' % (os.path.relpath(task.video, output), getattr(result, 'reason', result)))
    return sorted(failed)
