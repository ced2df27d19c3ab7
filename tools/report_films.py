"""The most confident mistakes of a run as films small enough to lie in its page: a JPEG picture each, frame beside
frame, decoded from the videos by the readers that training uses.
"""
import base64
import os
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

import cv2
import numpy as np

from data.clip_readers import frame_rate, open_clip
from data.clip_sampling import even_clip
from data.packed_store import PackedVideos
from data.reader import UnreadableClip
from data.transforms import Cut, Window
from data.video_list import VideoList
from dataset.specs import PROJECT, find_dataset, load_videos
from tools.report_run import RunData, whole
from tools.scores import Scored
from train.config import TrainConfig

FRAMES, HEIGHT, WIDEST, QUALITY = 16, 112, 224, 80  # pixels of a frame; of JPEG
USUAL_RATE = 25.0  # frames a second, where the video does not say
MOST = 1 << 12  # frames of a clip, and between two of them, that are believed
FASTEST, SLOWEST = 40, 500  # milliseconds a frame is shown


class Mistake(NamedTuple):
    """A video that was taken for another class."""

    path: str
    label: int
    answer: int
    sure: float  # probability of the answer
    of_label: float  # probability of the true class


class Film(NamedTuple):
    """Frames side by side."""

    picture: str  # data URI
    frames: int
    width: int  # of a frame, in pixels
    height: int
    delay: int  # milliseconds from frame to frame


def confident_mistakes(videos: Scored, count: int) -> List[Mistake]:
    """Of the videos that were read and answered wrongly, those whose answer was given the highest probability."""
    wrong = np.flatnonzero(videos.readable & (videos.best[:, 0] != videos.labels))
    answers = videos.best[wrong, 0]
    sure = videos.scores[wrong, answers]
    order = np.argsort(-sure, kind="stable")[:count]
    return [Mistake(videos.paths[row], int(videos.labels[row]), int(answer), float(share),
                    float(videos.scores[row, videos.labels[row]]))
            for row, answer, share in zip(wrong[order].tolist(), answers[order].tolist(), sure[order].tolist())]


def find_videos(run: RunData, data_root: Optional[str]) -> VideoList:
    """The test videos of a run, below `data_root` or where they were. ValueError or OSError where they are not there.
    """
    config = run.config
    name = config.get("dataset") or run.fact("dataset")
    if not name:
        raise ValueError("neither run.json nor result.json says of which data set its videos are")
    spec = find_dataset(str(name))
    started_in = run.about.get("started_in")
    told = config.get("data_root")
    root = data_root or (os.path.join(str(started_in or ""), str(told)) if told else
                         os.path.join(PROJECT, spec.default_root))
    if not os.path.isdir(root):
        raise ValueError("there is no folder %s; --data-root DIR says where the videos are now" % root)
    return load_videos(spec, root, whole(config.get("split")) or 1, str(config.get("source") or "auto"),
                       str(run.fact("modality") or "rgb")).test


def films_of(videos: VideoList, paths: Sequence[str], config: Mapping[str, Any]) -> List[Union[Film, str]]:
    """Of each path below the data set's folder its film, or why there is none."""
    wanted = set(paths)
    rows: Dict[str, int] = {}
    for row in range(len(videos)):
        path = videos.relative(row)
        if path in wanted:
            rows[path] = row
    return [_film_or_reason(videos, rows.get(path), config) for path in paths]


def _film_or_reason(videos: VideoList, row: Optional[int], config: Mapping[str, Any]) -> Union[Film, str]:
    if row is None:
        return "it is not among the test videos below %s" % videos.root
    try:
        return _film(videos, row, config)
    except (UnreadableClip, OSError) as error:
        return getattr(error, "reason", str(error))


def _film(videos: VideoList, row: int, config: Mapping[str, Any]) -> Film:
    """The stretch of the video that was judged, as fast as it was filmed."""
    reader = videos.open(row) if isinstance(videos, PackedVideos) else open_clip(
        videos.path(row), videos.kind, videos.num_frames(row), videos.facts(row))
    length, interval = (min(whole(config.get(name)) or getattr(TrainConfig, name), MOST)
                        for name in ("clip_length", "val_frame_interval"))
    clip = even_clip(reader.num_frames, length, interval)
    first, last = min(clip), max(clip)
    count = min(FRAMES, last - first + 1)
    wanted = [int(round(place)) for place in np.linspace(first, last, count)]
    frames = reader.read(wanted, small)  # (T, H, W, C)
    if frames.shape[3] == 2:  # flow: to the right is red, downward is green
        frames = np.concatenate([frames, np.full(frames.shape[:3] + (1,), 128, np.uint8)], 3)  # (T, H, W, 3)
    num, height, width = frames.shape[:3]
    strip = np.ascontiguousarray(frames[..., ::-1].transpose(1, 0, 2, 3)).reshape(height, num * width, 3)
    data = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    rate = (frame_rate(videos.path(row)) if videos.kind == "video" else None) or USUAL_RATE
    delay = 1000 * (last - first) / rate / max(1, count - 1)
    return Film("data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii"), num, width, height,
                int(min(max(delay, FASTEST), SLOWEST)))


def small(height: int, width: int) -> Cut:
    """The whole frame, no larger than the page shows it."""
    scale = min(1.0, HEIGHT / height, WIDEST / width)
    high, wide = max(1, int(round(scale * height))), max(1, int(round(scale * width)))
    return Cut(wide, high, Window(0, 0, wide, high))
