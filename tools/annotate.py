"""A copy of a video with the most probable classes drawn over its pictures; without sound.

H, W.
"""
import contextlib
import os
from bisect import bisect_right
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import cv2
import numpy as np

from data.clip_readers import UnreadableClip, open_capture, open_clip
from data.sliding import Clock
from tools.running import with_end

FONT = cv2.FONT_HERSHEY_SIMPLEX
LEAST_HEIGHT = 240  # pixels: smaller pictures are enlarged, else no word can be read
MOST_WIDTH = 1920  # pixels that they are enlarged to
CODINGS = ((".mp4", "mp4v"), (".avi", "MJPG"))  # the first that this OpenCV can write
DARK, LIGHT, BAR = (20, 20, 20), (255, 255, 255), (80, 175, 76)  # blue, green, red


class Caption(NamedTuple):
    """What is shown from `start` seconds on."""

    start: float
    top: List[Dict[str, Any]]  # class and probability


def annotate(path: str, kind: str, folder: str, captions: Sequence[Caption], rate: float) -> str:
    """Writes the copy into a folder, whole or not at all; its path. A video with damage ends before it. OSError where
    OpenCV cannot write it, UnreadableClip where there is no picture.
    """
    reader = open_clip(os.path.abspath(path), "rawframes" if kind == "flow" else kind)
    starts, clock = [caption.start for caption in captions], Clock(rate)
    film = _Film(folder, rate)
    try:
        for number, frame in with_end(enumerate(_pictures(reader)), reader.num_frames, "frames annotated"):
            turn = max(0, bisect_right(starts, clock(number, reader.time)) - 1)  # the last caption that has begun
            film.write(caption_picture(frame, captions[turn].top))
    except UnreadableClip:
        if not film.frames:
            raise
    except BaseException:  # Ctrl-C too
        film.drop()
        raise
    return film.finish(path)


class _Film:
    """A film in a folder, under a name that hides it until it is whole."""

    def __init__(self, folder: str, rate: float) -> None:
        self.folder, self.rate = folder, rate
        self.frames, self.part = 0, ""
        self._writer: Any = None

    def write(self, picture: np.ndarray) -> None:
        if self._writer is None:
            self._writer, self.part = _open_writer(self.folder, self.rate, picture.shape[1], picture.shape[0])
        self._writer.write(picture)
        self.frames += 1

    def drop(self) -> None:
        if self._writer is not None:
            self._writer.release()
            os.unlink(self.part)

    def finish(self, path: str) -> str:
        """Gives it the name of the video at `path`. OSError where it is not whole: OpenCV says nothing of a full disk.
        """
        self._writer.release()
        if _stated_frames(self.part) < self.frames:
            os.unlink(self.part)
            raise OSError("--annotate %s: the copy of %s cannot be written whole; see that the disk has room"
                          % (self.folder, path))
        ending = os.path.splitext(self.part)[1]
        target = free_name(self.folder, path, [ending for ending, _ in CODINGS]) + ending
        os.replace(self.part, target)
        return target


def _stated_frames(path: str) -> int:
    """How many frames the head of a film speaks of; 0 where it cannot be opened."""
    try:
        with open_capture(path) as capture:
            return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    except UnreadableClip:
        return 0


def _pictures(reader: Any) -> Iterator[np.ndarray]:
    """All frames, blue first, enlarged where they are small."""
    for frame in reader.read_each(range(reader.num_frames)):
        picture = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        times = min(-(-LEAST_HEIGHT // picture.shape[0]), MOST_WIDTH // picture.shape[1])
        yield cv2.resize(picture, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC) if times > 1 else picture


def caption_picture(picture: np.ndarray, top: Sequence[Dict[str, Any]]) -> np.ndarray:
    """The picture (H, W, 3), blue first, sides made even, with a line for each class: a bar as long as it is probable,
    its name, its percentage.
    """
    height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    picture = np.ascontiguousarray(picture[:height, :width])
    line = max(16, min(height // 13, width // 10))
    rows = list(top)[:max(1, height // (2 * line))]
    texts = ["%s %.0f %%" % (answer["class"], 100 * answer["probability"]) for answer in rows]
    thick = max(1, line // 18)
    widest = max(cv2.getTextSize(text, FONT, line / 34, thick)[0][0] for text in texts)
    scale = line / 34 * min(1.0, (width - line) / widest)
    shade = picture[:line * len(rows) + line // 2]
    shade[...] = cv2.addWeighted(shade, 0.45, np.full_like(shade, DARK), 0.55, 0)
    for number, (answer, text) in enumerate(zip(rows, texts)):
        base = line * (number + 1)
        long = int((width - line) * answer["probability"])
        corners = (line // 2, base - line + line // 3), (line // 2 + long, base + line // 4)
        cv2.rectangle(picture, *corners, BAR, cv2.FILLED)
        for colour, shift in ((DARK, thick), (LIGHT, 0)):
            cv2.putText(picture, text, (line // 2 + 3 + shift, base + shift), FONT, scale, colour, thick, cv2.LINE_AA)
    return picture


def free_name(folder: str, path: str, endings: Sequence[str]) -> str:
    """A name in the folder after the video's, without ending; numbered where it is taken with one of the endings."""
    stem = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
    name, number = stem, 1
    while any(os.path.exists(os.path.join(folder, name + ending)) for ending in endings):
        number += 1
        name = "%s-%d" % (stem, number)
    return os.path.join(folder, name)


def _open_writer(folder: str, rate: float, width: int, height: int) -> Any:
    """(writer, path of the file while it is written) of the first coding that works."""
    for ending, code in CODINGS:
        part = os.path.join(folder, ".annotated.%d.part%s" % (os.getpid(), ending))
        writer = cv2.VideoWriter(part, cv2.VideoWriter.fourcc(*code), rate, (width, height))
        if writer.isOpened():
            return writer, part
        with contextlib.suppress(OSError):
            os.unlink(part)
    raise OSError("--annotate %s: OpenCV can write no video of %d x %d pixels there; see that the disk has room"
                  % (folder, width, height))
