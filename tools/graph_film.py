"""The overlay film: a video beside copies of itself, each in grey under the map of one node; without sound.

K node that is shown, T' times of a map, H, W; P, Q rows and columns of a tile.
"""
import contextlib
import math
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from data.clip_readers import UnreadableClip
from data.clip_sampling import even_clip
from data.reader import Reader
from data.sliding import sliding_clips, window_starts
from data.streams import ClipGeometry
from data.transforms import Cut, EvalTransform
from tools.annotate import CODINGS, DARK, FONT, LIGHT
from tools.graph_overlay import UNSEEN, Lens, as_picture, coloured, linear, pixels_of, stride_between
from tools.graph_sight import Sight
from tools.running import with_end

TILE = 240  # pixels of a tile's height
WIDEST = 4 * TILE
LINE = 28  # pixels of a tile that its words take


class Plan(NamedTuple):
    """One film: a unit's nodes, the weights that have full colour, where it goes (without ending)."""

    unit: str
    nodes: Sequence[int]
    full: np.ndarray  # (K,)
    name: str


def clip_places(numbers: Sequence[int], indices: Sequence[int]) -> np.ndarray:
    """Where frames of the video lie between the frames of the clip, `indices`: (frames,). Of a video that is too short,
    whose frames are repeated, the first turn counts.
    """
    turns = np.flatnonzero(np.diff(indices) <= 0)
    rising = list(indices)[:int(turns[0]) + 1] if len(turns) else list(indices)
    return np.interp(numbers, rising, np.arange(len(rising)))


def write_films(reader: Reader, transform: EvalTransform, geometry: ClipGeometry, rate: float, plans: Sequence[Plan],
                look: Callable[[np.ndarray], Dict[str, Sight]]) -> List[str]:
    """Writes the whole video under the maps of each plan, of clips laid end to end; the paths. `look` sees a clip
    (T, H, W, C). A video with damage ends before it. UnreadableClip where there is no picture, OSError where OpenCV
    cannot write.
    """
    span = (geometry.clip_length - 1) * geometry.val_interval + 1
    clips = with_end(sliding_clips(reader, transform, geometry.clip_length, geometry.val_interval, span),
                     len(window_starts(reader.num_frames, span, span)), "parts of the film")
    frames = reader.read_each(range(reader.num_frames))
    films: List[_Film] = []
    done = 0
    with contextlib.ExitStack() as stack:
        try:
            for clip in clips:
                sights = look(clip.clip)
                short = reader.num_frames <= span
                indices = even_clip(reader.num_frames, geometry.clip_length, geometry.val_interval) if short else range(
                    clip.start, clip.end, geometry.val_interval)
                for place, frame in zip(clip_places(range(done, clip.end), indices), frames):
                    picture = _tile(frame)
                    if not films:
                        cut = transform.cut(*frame.shape[:2])
                        films = [stack.enter_context(_film(plan, picture, cut, geometry, rate)) for plan in plans]
                    for film in films:
                        film.add(picture, place, sights[film.plan.unit])
                    done += 1
        except UnreadableClip:
            if not done:
                raise
    return [film.path for film in films]


class _Film:
    """A film that is being written."""

    def __init__(self, plan: Plan, picture: np.ndarray, cut: Cut, geometry: ClipGeometry, rate: float) -> None:
        self.plan = plan
        self._crop, self._length = geometry.crop, geometry.clip_length
        height, width = picture.shape[:2]
        self._rows = pixels_of(height, cut.height) - cut.window.top
        self._columns = pixels_of(width, cut.width) - cut.window.left
        self._across = math.ceil(math.sqrt(len(plan.nodes) + 1))
        down = -(-(len(plan.nodes) + 1) // self._across)
        self._canvas = np.full((down * height, self._across * width, 3), DARK, np.uint8)
        self.frames = 0
        self.writer, self.unfinished, self.path = _open_writer(plan.name, rate, self._canvas.shape)

    def add(self, picture: np.ndarray, place: float, sight: Sight) -> None:
        """One frame of the video (P, Q, 3), at this place among the frames of the clip that was looked at."""
        maps = sight.maps[list(self.plan.nodes)]  # (K, T', H, W)
        lens = Lens(maps.shape[2:], self._crop, self._rows, self._columns)
        time = linear(np.array([place / stride_between(self._length, maps.shape[1])]), maps.shape[1])[0]  # (T',)
        weights = np.tensordot(maps, time, (1, 0)) / self.plan.full[:, None, None]  # (K, H, W)
        self._put(0, picture, self.plan.unit)
        seen = lens.seen[:, :, None]
        for number, (node, own) in enumerate(zip(self.plan.nodes, weights), 1):
            tile = coloured(picture, lens.read(own))
            tile = np.where(seen, tile, cv2.convertScaleAbs(tile, alpha=UNSEEN))
            self._put(number, tile, "node %d" % node)
        self.writer.write(self._canvas)
        self.frames += 1

    def _put(self, number: int, tile: np.ndarray, words: str) -> None:
        """A tile (P, Q, 3), red first, with words on it, into its place of the canvas."""
        row, column = divmod(number, self._across)
        height, width = tile.shape[:2]
        tile = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR)
        tile[:LINE] = cv2.convertScaleAbs(tile[:LINE], alpha=UNSEEN)
        cv2.putText(tile, words, (8, LINE - 8), FONT, 0.6, LIGHT, 1, cv2.LINE_AA)
        self._canvas[row * height:(row + 1) * height, column * width:(column + 1) * width] = tile


@contextlib.contextmanager
def _film(plan: Plan, picture: np.ndarray, cut: Cut, geometry: ClipGeometry, rate: float) -> Iterator[_Film]:
    """A film that has its name when it is whole."""
    film = _Film(plan, picture, cut, geometry, rate)
    try:
        yield film
        film.writer.release()
        written = cv2.VideoCapture(film.unfinished, cv2.CAP_FFMPEG)
        if int(written.get(cv2.CAP_PROP_FRAME_COUNT)) != film.frames:
            raise OSError("%s came out incomplete: see that the disk has room" % film.path)
        written.release()
        os.replace(film.unfinished, film.path)
    finally:
        film.writer.release()
        with contextlib.suppress(FileNotFoundError):
            os.remove(film.unfinished)


def _tile(frame: np.ndarray) -> np.ndarray:
    """A frame (H, W, C) as the picture of a tile: (P, Q, 3)."""
    size = tile_size(frame.shape)
    shrinks = frame.shape[0] > size[1]
    return cv2.resize(as_picture(frame), size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def tile_size(shape: Sequence[int]) -> Tuple[int, int]:
    """(width, height) of a tile for frames (H, W, C), both even."""
    return max(2, min(WIDEST, round(TILE * shape[1] / shape[0] / 2) * 2)), TILE


def _open_writer(name: str, rate: float, shape: Sequence[int]) -> Tuple[Any, str, str]:
    """(writer, path while it is written, path) of the first coding that works."""
    folder, base = os.path.split(name)
    for ending, code in CODINGS:
        unfinished = os.path.join(folder, ".%s.%d.tmp%s" % (base, os.getpid(), ending))
        writer = cv2.VideoWriter(unfinished, cv2.VideoWriter.fourcc(*code), rate, (shape[1], shape[0]))
        if writer.isOpened():
            return writer, unfinished, name + ending
        with contextlib.suppress(OSError):
            os.remove(unfinished)
    raise OSError("--output: OpenCV can write no video to %s; see that the disk has room" % name)
