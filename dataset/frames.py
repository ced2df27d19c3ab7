"""A video as a folder of JPEG files: its frames, img_00001.jpg on, and the optical flow between them, flow_x_00001.jpg
and flow_y_00001.jpg on (flow 1 leads from frame 1 to frame 2).

Flow as the field stores it: pixels a frame, cut to ±BOUND, 0 at level 128. TV-L1: Zach et al., 2007; DIS: Kroeger
et al., 2016; both are OpenCV's.
"""
import os
import shutil
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np

from data.clip_readers import UnreadableClip, open_clip
from dataset.examine import FRAME_NAME
from dataset.made_with import hold_to
from dataset.pictures import jpeg_of, shrunk
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
    part = os.path.join(os.path.dirname(task.folder), '.%s.part' % os.path.basename(task.folder))  # no video's folder
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    cv2.setNumThreads(0)
    try:
        _write_all(task, part)
    except UnreadableClip as error:
        shutil.rmtree(part)
        return error.reason
    except cv2.error as error:
        shutil.rmtree(part)
        return 'no pictures can be made (%s)' % error
    os.rename(part, task.folder)
    return ''


def _write_all(task: FrameTask, folder: str) -> None:
    reader = open_clip(task.video, 'video')
    method = FLOWS[task.flow]() if task.flow else None
    before: Optional[np.ndarray] = None
    for number, frame in enumerate(reader.frames(range(reader.num_frames)), 1):
        if frame is None:
            raise UnreadableClip(task.video, 'frame %d cannot be decoded to 8-bit colour' % (number - 1))
        frame = shrunk(frame, task.short_side)
        if task.rgb:
            _write(folder, FRAME_NAME % number, frame, task.quality)
        if method is not None:
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            if before is not None:
                levels = flow_levels(method.calc(before, grey, None))
                for axis, name in enumerate(('flow_x', 'flow_y')):
                    _write(folder, '%s_%05d.jpg' % (name, number - 1), levels[:, :, axis], task.quality)
            before = grey


def _write(folder: str, name: str, picture: np.ndarray, quality: int) -> None:
    with open(os.path.join(folder, name), 'wb') as file:
        file.write(jpeg_of(picture, quality))


def count_frames(folder: str) -> int:
    """How many frames there were of which `write_frames` has written something there."""
    counts = Counter(name[:name.rindex('_')] for name in os.listdir(folder) if '_' in name)
    return max(counts['img'], counts['flow_x'] + 1 if counts['flow_x'] else 0)


def _write_safely(task: FrameTask) -> Union[str, OSError]:
    try:
        return write_frames(task)
    except OSError as error:
        return error


def make_pictures(output: str, paths: Sequence[str], chosen: Dict[str, Any], workers: int) -> List[str]:
    """Raw frames and flow of the videos at `paths` below `output`; those that gave none, with the reason. ValueError
    where others of other options are there, OSError where they cannot be written.
    """
    folder = os.path.join(output, 'rawframes')
    hold_to(folder, chosen)
    tasks = [FrameTask(os.path.join(output, path), os.path.join(folder, os.path.splitext(os.path.relpath(
        path, 'videos'))[0]), **chosen) for path in paths]
    failed = []
    tasks = [task for task in tasks if not os.path.isdir(task.folder)]  # so that the estimate is of what is left
    results = run_all(_write_safely, tasks, workers, MOST_SECONDS)
    for task, result in with_progress(results, len(tasks), 'turned into pictures', say_progress):
        if isinstance(result, OSError):
            raise result
        if result:
            failed.append('%s: %s' % (os.path.relpath(task.video, output), getattr(result, 'reason', result)))
    return sorted(failed)
