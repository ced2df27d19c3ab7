"""The host's part of the augmentation: scale, crop and flip on uint8 clips, and the scalars of the device's part.

Each random transform is a draw(random state) -> parameters and an apply(clip, parameters). The reference's rounding
and order of draws are kept, so that its random streams give its pictures. T frame, H, W, C = R, G, B.
"""
from typing import Callable, NamedTuple, Tuple

import cv2
import numpy as np

ASPECT_RANGE = (0.8, 1 / 0.8)
HLS_REACH = (15, 35, 25)  # hue (0-180 scale), lightness, saturation
JITTER_REACH = 20.0
RandomState = np.random.RandomState
States = Callable[[str], RandomState]


class Window(NamedTuple):
    """A part of a frame, in pixels."""

    left: int
    top: int
    width: int
    height: int


class ClipDraw(NamedTuple):
    """Everything random about one training clip, the same for all its frames."""

    width: int
    height: int
    left: int
    top: int
    flip: bool
    hls: Tuple[int, int, int]
    jitter: Tuple[float, float]


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


def resized_window(frame: np.ndarray, size: Tuple[int, int], window: Window) -> np.ndarray:
    """The window of the frame (H, W, C) as resized, bilinear, to `size` = (width, height); a view.

    Equals resizing and then cutting: what lies right of the window and below it is left out beforehand, which moves
    no sampling point while the scale is given as it is for the whole frame.
    """
    high, wide = frame.shape[:2]
    if (wide, high) != size:
        scale_x, scale_y = size[0] / wide, size[1] / high
        columns = int((window.left + window.width) / scale_x) + 2
        rows = int((window.top + window.height) / scale_y) + 2
        frame = cv2.resize(frame[:rows, :columns], None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_LINEAR)
    return frame[window.top:window.top + window.height, window.left:window.left + window.width]


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

    def draw(self, height: int, width: int, states: States) -> ClipDraw:
        """All parameters of one clip; `states(name)` gives the generator of scale, crop, flip, hls and jitter."""
        wide, high = draw_scale(width, height, self.short_side, states("scale"))
        left, top = draw_crop(wide, high, (self.crop, self.crop), states("crop"))
        return ClipDraw(wide, high, left, top, draw_flip(states("flip")), draw_hls(states("hls")),
                        draw_jitter(states("jitter")))

    def apply(self, clip: np.ndarray, draw: ClipDraw) -> np.ndarray:
        """(T, H, W, C) uint8 -> (T, crop, crop, C) uint8, newly allocated."""
        crop = self.crop
        out = np.empty((len(clip), crop, crop, clip.shape[3]), np.uint8)
        window = Window(draw.left, draw.top, crop, crop)
        for frame, target in zip(clip, out):
            cut = resized_window(frame, (draw.width, draw.height), window)
            if draw.flip:
                cv2.flip(cut, 1, dst=target)
            else:
                target[...] = cut
        return out


class EvalTransform:
    """Short side to `short_side`, then the middle `crop` x `crop` window."""

    def __init__(self, crop: int = 224, short_side: int = 256) -> None:
        _check_sides(crop, short_side)
        self.crop = crop
        self.short_side = short_side

    def apply(self, clip: np.ndarray) -> np.ndarray:
        """(T, H, W, C) uint8 -> (T, crop, crop, C) uint8, newly allocated."""
        crop = self.crop
        size = short_side_size(clip.shape[2], clip.shape[1], self.short_side)
        window = Window(*center_crop(size[0], size[1], (crop, crop)), crop, crop)
        out = np.empty((len(clip), crop, crop, clip.shape[3]), np.uint8)
        for frame, target in zip(clip, out):
            target[...] = resized_window(frame, size, window)
        return out
