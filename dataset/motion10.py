"""motion10: ten classes that only motion tells apart, rendered as short video files on first use.

A frame is a sum of M plane waves of random phase, direction and wavelength. Every motion maps that distribution onto
itself, so that one frame looks the same in all classes, at any place of the clip. T frame, M wave, H = W pixel.
"""
from typing import Callable, Dict, NamedTuple

import numpy as np

from dataset.rendering import FilmSet, each_film, keyed_draws, render_once, video_name, write_film

FILMS = FilmSet('motion10', 'motion10 version 1\n', 'about 60 MB and ten seconds')
GROUPS, CLIPS_PER_GROUP = 25, 5
FRAMES, SIDE, FRAMES_PER_SECOND = 24, 40, 12.0
HOLD = 2  # frames between two sudden changes; a multiple of it is the interval that shows them all
WAVES, SHORTEST, LONGEST = 16, 6.0, 14.0  # wavelengths in pixels
SPEED, ZOOM, SPIN, BOIL = 1.0, 0.06, 0.075, 0.7  # a frame: pixels, logarithm of size, radians, radians of phase
CONTRAST, GAIN, TINT = 85.0, 1.2, 0.15


class Motion(NamedTuple):
    """What happens to the waves from the first frame on; each field (T,), or (T, M) where waves differ."""

    right: np.ndarray  # pixels
    down: np.ndarray  # pixels
    turn: np.ndarray  # radians
    growth: np.ndarray  # logarithm of the size
    advance: np.ndarray  # radians of phase


def _motion(right: float = 0.0, down: float = 0.0, turn: float = 0.0, growth: float = 0.0) -> Motion:
    """A steady motion, in amounts a frame."""
    steps = np.arange(FRAMES)
    return Motion(right * steps, down * steps, turn * steps, growth * steps, np.zeros((FRAMES, 1)))


def _side(random: np.random.RandomState) -> float:
    return 1.0 if random.uniform() < 0.5 else -1.0


def _holds(random: np.random.RandomState) -> np.ndarray:
    """The number of sudden changes before each frame, (T,); the first one comes at a random frame."""
    return (np.arange(FRAMES) + random.randint(HOLD)) // HOLD


def _jump(random: np.random.RandomState) -> Motion:
    places = random.uniform(-1000, 1000, (2, FRAMES))[:, _holds(random)]
    return _motion()._replace(right=places[0], down=places[1])


def _flicker(random: np.random.RandomState) -> Motion:
    return _motion()._replace(advance=np.pi * (_holds(random) % 2)[:, None])  # light and dark change places


def _boil(random: np.random.RandomState) -> Motion:
    steps = BOIL * random.uniform(0.8, 1.2, WAVES) * np.where(random.permutation(WAVES) % 2 == 0, 1, -1)
    return _motion()._replace(advance=np.arange(FRAMES)[:, None] * steps)


# In label order. A mirrored video stays in its class.
MOTIONS: Dict[str, Callable[[np.random.RandomState], Motion]] = {
    'Boil': _boil,
    'Down': lambda random: _motion(down=SPEED),
    'Flicker': _flicker,
    'Jump': _jump,
    'Sideways': lambda random: _motion(right=SPEED * _side(random)),
    'Spin': lambda random: _motion(turn=SPIN * _side(random)),
    'Still': lambda random: _motion(),
    'Up': lambda random: _motion(down=-SPEED),
    'ZoomIn': lambda random: _motion(growth=ZOOM),
    'ZoomOut': lambda random: _motion(growth=-ZOOM),
}


class Look(NamedTuple):
    """What the clips of a group share, whatever their class."""

    base: np.ndarray  # (3,) mean red, green and blue level
    tint: np.ndarray  # (3, 2) how far the waves are from grey


def _look(group: int) -> Look:
    random = keyed_draws('look %d' % group)
    return Look(118.0 + random.uniform(-20, 20, 3), TINT * random.uniform(-1, 1, (3, 2)))


def make_clip(motion: str, group: int, clip: int) -> np.ndarray:
    """The frames of one video as they go to the encoder: (T, H, W, 3) uint8 RGB. The same numbers every time."""
    random = keyed_draws(video_name(motion, group, clip))
    octave = (np.arange(WAVES) + random.uniform()) / WAVES  # (M,) 0 longest wave … 1 shortest
    direction = 2 * np.pi * (random.permutation(WAVES) + random.uniform()) / WAVES
    phase, hue = 2 * np.pi * random.uniform(size=(2, WAVES))
    look = _look(group)
    return _render(MOTIONS[motion](random), octave, direction, phase, _colours(look, hue), look.base)


def _colours(look: Look, hue: np.ndarray) -> np.ndarray:
    """Red, green and blue amplitude of each wave: (3, M)."""
    return 1.0 + look.tint @ np.stack([np.cos(hue), np.sin(hue)])


def _render(motion: Motion, octave: np.ndarray, direction: np.ndarray, phase: np.ndarray, colours: np.ndarray,
            base: np.ndarray) -> np.ndarray:
    """The sum of the waves for each frame, squashed to levels: (T, H, W, 3) uint8."""
    span = np.log(LONGEST / SHORTEST)
    # A wave that leaves the band at one end comes back at the other: both ends are silent.
    place = (octave - motion.growth[:, None] / span) % 1.0  # (T, M)
    volume = np.sin(np.pi * place)
    number = 2 * np.pi / LONGEST * np.exp(place * span)  # (T, M) radians a pixel
    angle = direction + motion.turn[:, None]
    pixel = np.arange(SIDE) - (SIDE - 1) / 2
    rows = (number * np.sin(angle))[:, :, None] * (pixel - motion.down[:, None, None])  # (T, M, H)
    rows = rows + (phase + motion.advance)[:, :, None]
    columns = (number * np.cos(angle))[:, :, None] * (pixel - motion.right[:, None, None])  # (T, M, W)
    strength = volume / np.sqrt((volume ** 2).sum(1, keepdims=True) / 2)
    left = colours[:, None, :, None] * (strength[:, :, None] * np.exp(1j * rows))  # (3, T, M, H)
    field = np.matmul(left.transpose(1, 0, 3, 2), np.exp(1j * columns)[:, None]).real  # (T, 3, H, W)
    levels = base[:, None, None] + CONTRAST * np.tanh(GAIN * field)
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def render(root: str) -> bool:
    """Renders the set below `root`, laid out as UCF-101, where it is not there yet; True where it did, as render_once.

    About 60 MB and ten seconds.
    """
    return render_once(root, FILMS, _render_all)


def _render_all(folder: str) -> None:
    for motion, group, clip, path in each_film(folder, list(MOTIONS), GROUPS, CLIPS_PER_GROUP):
        write_film(path, make_clip(motion, group, clip), FRAMES_PER_SECOND)
