"""The host's part of the augmentation: scale, crop and flip on uint8 clips, and the scalars of the device's part.

Each random transform is a draw(random state) -> parameters; what happens to the frames is a Cut, which a reader applies
to each frame as it is decoded. The reference's rounding and order of draws are kept, so that its random streams give
its pictures. T frame, H, W, C = R, G, B (of flow: x, y).
"""
from typing import Callable, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from data.modalities import MODALITIES, NEGATED

ASPECT_RANGE = (0.8, 1 / 0.8)
HLS_REACH = (15, 35, 25)  # hue (0-180 scale), lightness, saturation
JITTER_REACH = 20.0
FLOW_CHANNELS = MODALITIES["flow"].channels
RandomState = np.random.RandomState
States = Callable[[str], RandomState]


class Window(NamedTuple):
    """A part of a frame, in pixels."""

    left: int
    top: int
    width: int
    height: int


class Cut(NamedTuple):
    """What becomes of each frame of a clip: resized to `width` x `height`, of that the window, mirrored for `flip`.

    In a mirror flow to the right is flow to the left.
    """

    width: int
    height: int
    window: Window
    flip: bool = False


CutOf = Callable[[int, int], Cut]  # (height, width) of the frames -> what to cut out of them


class Colour(NamedTuple):
    """What the device does to one clip: offsets of H, L and S, and the range of the pixel noise."""

    hls: Tuple[int, int, int]
    jitter: Tuple[float, float]


def whole_frame(height: int, width: int) -> Cut:
    """The frame as it is."""
    return Cut(width, height, Window(0, 0, width, height))


def draw_scale(width: int, height: int, short_side: Tuple[int, int], random_state: RandomState) -> Tuple[int, int]:
    """New (width, height): aspect changed by up to 1.25 either way, short side uniform in `short_side`."""
    aspect = (random_state.uniform(*ASPECT_RANGE) + random_state.uniform(*ASPECT_RANGE)) / 2
    if random_state.uniform() > 0.5:
        aspect = 1 / aspect
    wide, high = width * aspect, height / aspect
    scale = random_state.uniform(*short_side) / min(wide, high)
    return int(wide * scale + 1), int(high * scale + 1)


def draw_crop(width: int, height: int, crop: Tuple[int, int], random_state: RandomState) -> Tuple[int, int]:
    """(left, top) of a window of `crop` = (width, height), uniform over all places where it fits."""
    left = random_state.choice(width - crop[0] + 1)
    top = random_state.choice(height - crop[1] + 1)
    return int(left), int(top)


def draw_flip(random_state: RandomState) -> bool:
    return bool(random_state.uniform() < 0.5)


def draw_hls(random_state: RandomState, reach: Tuple[int, int, int] = HLS_REACH) -> Tuple[int, int, int]:
    """Offsets of hue, lightness and saturation in OpenCV's 8-bit units, cut to integers toward zero."""
    hue, lightness, saturation = (int(random_state.uniform(-most, most)) for most in reach)
    return hue, lightness, saturation


def draw_jitter(random_state: RandomState, reach: float = JITTER_REACH) -> Tuple[float, float]:
    """The range (low, high) of one clip's pixel noise, in levels of 255."""
    low = random_state.uniform(-reach, 0)
    high = random_state.uniform(0, reach)
    return float(low), float(high)


class FrameCutter:
    """Applies a cut to frames (H, W, C) uint8 of one size; keeps its intermediate picture for the next frame."""

    def __init__(self, cut: Cut, height: int, width: int) -> None:
        window = cut.window
        self._cut = cut
        self._resized: Optional[np.ndarray] = None
        self._same = (width, height) == (cut.width, cut.height)
        self._scale = cut.width / width, cut.height / height
        # What lies right of the window and below it is left out beforehand. That moves no sampling point while the
        # scale is given as it is for the whole frame, so the result equals resizing the frame and then cutting.
        self._columns = int((window.left + window.width) / self._scale[0]) + 2
        self._rows = int((window.top + window.height) / self._scale[1]) + 2

    def apply(self, frame: np.ndarray, out: np.ndarray, blue_first: bool = False) -> None:
        """Writes the cut (window's height, width, C = R, G, B) to `out`; `blue_first`: the frame is B, G, R."""
        window = self._cut.window
        if not self._same:
            frame = self._resized = cv2.resize(
                frame[:self._rows, :self._columns], None, dst=self._resized, fx=self._scale[0], fy=self._scale[1],
                interpolation=cv2.INTER_LINEAR)
        part = frame[window.top:window.top + window.height, window.left:window.left + window.width]
        if blue_first:
            part = cv2.cvtColor(part, cv2.COLOR_BGR2RGB, dst=out)
        if self._cut.flip:
            cv2.flip(part, 1, dst=out)
            _turn_flow(out)
        elif not blue_first:
            out[...] = part


def _turn_flow(mirrored: np.ndarray) -> None:
    """In a mirror flow to the right is flow to the left: (..., C), changed in place where C says that it is flow."""
    if mirrored.shape[-1] == FLOW_CHANNELS:
        mirrored[..., 0] = NEGATED[mirrored[..., 0]]


def cut_clip(clip: np.ndarray, cut: Cut) -> np.ndarray:
    """(T, H, W, C) uint8 -> the cut of each frame, newly allocated."""
    out = np.empty((len(clip), cut.window.height, cut.window.width, clip.shape[3]), np.uint8)
    cutter = FrameCutter(cut, clip.shape[1], clip.shape[2])
    for frame, target in zip(clip, out):
        cutter.apply(frame, target)
    return out


def short_side_size(width: int, height: int, short_side: int) -> Tuple[int, int]:
    """(width, height) with the short side at `short_side` and the long one cut to an integer."""
    if width < height:
        return short_side, int(short_side * height / width)
    return int(short_side * width / height), short_side


def center_crop(width: int, height: int, crop: Tuple[int, int]) -> Tuple[int, int]:
    """(left, top) of the middle window; half a pixel goes to the even side."""
    return round((width - crop[0]) / 2), round((height - crop[1]) / 2)


def _check_sides(crop: int, least_side: int) -> None:
    if crop < 1:
        raise ValueError("--crop-size must be at least 1 pixel, not %d" % crop)
    if least_side < crop:
        raise ValueError("--crop-size %d does not fit a short side of %d pixels: scale to at least the crop size"
                         % (crop, least_side))


class TrainAugmentation:
    """Random scale, crop and flip; `short_side` = (least, most) pixels of the scaled clip's short side."""

    def __init__(self, crop: int = 224, short_side: Tuple[int, int] = (224, 340)) -> None:
        _check_sides(crop, min(short_side))
        self.crop = crop
        self.short_side = short_side

    def cut(self, height: int, width: int, states: States) -> Cut:
        """The cut of one clip with frames of this size; `states(name)` gives the generator of scale, crop and flip."""
        wide, high = draw_scale(width, height, self.short_side, states("scale"))
        left, top = draw_crop(wide, high, (self.crop, self.crop), states("crop"))
        return Cut(wide, high, Window(left, top, self.crop, self.crop), draw_flip(states("flip")))

    @staticmethod
    def colour(states: States) -> Colour:
        """The device's part for one clip, from the generators of hls and jitter."""
        return Colour(draw_hls(states("hls")), draw_jitter(states("jitter")))


class EvalTransform:
    """Short side to `short_side`, then the middle `crop` x `crop` window; or `crops` of them, from one end of the
    longer side to the other; with `flips` each of them mirrored as well.
    """

    def __init__(self, crop: int = 224, short_side: int = 256, crops: int = 1, flips: bool = False) -> None:
        _check_sides(crop, short_side)
        self.crop = crop
        self.short_side = short_side
        self.crops = crops
        self.flips = flips

    @property
    def views(self) -> int:
        """Windows cut out of a clip."""
        return self.crops * (2 if self.flips else 1)

    def cut(self, height: int, width: int) -> Cut:
        """The cut of clips with frames of this size: the one window, or the strip that holds them all."""
        wide, high = short_side_size(width, height, self.short_side)
        left, top = center_crop(wide, high, (self.crop, self.crop))
        if self.crops == 1:
            return Cut(wide, high, Window(left, top, self.crop, self.crop))
        if wide >= high:
            return Cut(wide, high, Window(0, top, wide, self.crop))
        return Cut(wide, high, Window(left, 0, self.crop, high))

    def windows(self, clip: np.ndarray) -> np.ndarray:
        """A clip cut as `cut` says -> all its windows, one behind the other: (views*T, crop, crop, C)."""
        if self.views == 1:
            return clip
        height, width = clip.shape[1:3]
        parts = []
        for number in range(self.crops):
            left, top = (round((size - self.crop) * number / max(1, self.crops - 1)) for size in (width, height))
            parts.append(clip[:, top:top + self.crop, left:left + self.crop])
        if self.flips:
            parts += [part[:, :, ::-1] for part in parts]
        windows = np.concatenate(parts)  # (views*T, crop, crop, C)
        if self.flips:
            _turn_flow(windows[len(windows) // 2:])
        return windows
