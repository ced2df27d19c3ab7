"""relations: do two distant discs drift the same way, opposite ways or across? Rendered as short films on first use.

A film shows three discs that stay where they are, each a window on a sum of plane waves; in two of them the waves
drift, in the third they stand still. Every film has a twin in each other class: all but the second disc's direction is
the same. In each class each disc alone drifts to all sides equally often, so that neither says anything of the label.
T frame, M wave, H = W pixel.
"""
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

from dataset.rendering import FilmSet, each_film, keyed_draws, render_once, write_film

FILMS = FilmSet('relations', 'relations version 1\n', 'about 50 MB and fifteen seconds')
GROUPS, CLIPS_PER_GROUP = 25, 32  # a multiple of 8 has every direction and hand in each group
FRAMES, SIDE, FRAMES_PER_SECOND = 16, 40, 12.0
INTERVAL = 2  # frames between those of a clip
SPEED = 1.0  # pixels a frame
RADIUS, EDGE = 6.5, 1.0  # pixels: of a disc, and how soft its edge is
BORDER, APART, ASIDE = 8.0, 20.0, 13.0  # pixels: centres to the picture's edge, drifting to drifting, third to both
WAVES, SHORTEST, LONGEST = 6, 5.0, 10.0  # wavelengths in pixels
BACKDROP_WAVES, BACKDROP_LONGEST = 8, 40.0
CONTRAST, BACKDROP_CONTRAST, GAIN = 90.0, 20.0, 1.2

# In label order: quarter turns from the first disc's direction to the second's. A mirrored film stays in its class.
RELATIONS: Dict[str, Tuple[int, int]] = {'Across': (1, 3), 'Opposite': (2, 2), 'Same': (0, 0)}


class Waves(NamedTuple):
    """A texture: the sum of M waves."""

    number: np.ndarray  # (M, 2) radians a pixel to the right, down
    phase: np.ndarray  # (M,) radians


class Disc(NamedTuple):
    """A window on waves: where it is, and whereto they drift in it, in quarter turns from the right, up being 1."""

    centre: Tuple[float, float]  # pixels from the left, from the top
    direction: Optional[int]  # None: they stand still
    waves: Waves


class Scene(NamedTuple):
    """All that a film shows. The first two discs drift."""

    discs: Tuple[Disc, Disc, Disc]
    backdrop: Waves
    tint: np.ndarray  # (3,) mean red, green and blue level, shared by a group


def relation_of(scene: Scene) -> str:
    """The class of a scene, from the directions of its drifting discs."""
    first, second = (disc.direction for disc in scene.discs if disc.direction is not None)
    return next(name for name, turns in RELATIONS.items() if (second - first) % 4 in turns)


def make_scene(relation: str, group: int, clip: int) -> Scene:
    """What a film shows. All but the second disc's direction is the same in every class; group and clip from 1."""
    random = keyed_draws('relations g%02d c%02d' % (group, clip))
    tint = 118.0 + keyed_draws('relations look %d' % group).uniform(-20, 20, 3)
    centres = _places(random)
    textures = [_waves(random, WAVES, SHORTEST, LONGEST) for _ in centres]
    first, hand = (clip - 1) % 4, (clip - 1) // 4 % 2
    directions = (first, (first + RELATIONS[relation][hand]) % 4, None)
    discs = [Disc((float(centre[0]), float(centre[1])), direction, waves)
             for centre, direction, waves in zip(centres, directions, textures)]
    backdrop = _waves(random, BACKDROP_WAVES, SHORTEST, BACKDROP_LONGEST)
    return Scene((discs[0], discs[1], discs[2]), backdrop, tint)


def _places(random: np.random.RandomState) -> np.ndarray:
    """Centres of the three discs, (3, 2) pixels: the first two far apart, the third away from both."""
    while True:
        places = random.uniform(BORDER, SIDE - 1 - BORDER, (3, 2))
        gaps = np.linalg.norm(places - places[[1, 2, 0]], axis=1)  # first to second, second to third, third to first
        if gaps[0] >= APART and gaps[1:].min() >= ASIDE:
            return places


def _waves(random: np.random.RandomState, count: int, shortest: float, longest: float) -> Waves:
    """Waves of all directions; their lengths are spread evenly over the octaves."""
    length = shortest * (longest / shortest) ** ((np.arange(count) + random.uniform()) / count)  # (M,)
    angle = 2 * np.pi * (random.permutation(count) + random.uniform()) / count
    number = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (M, 2)
    return Waves(number, 2 * np.pi * random.uniform(size=count))


def _field(waves: Waves, shift: np.ndarray) -> np.ndarray:
    """The sum of waves that are moved by `shift` (T, 2) pixels: (T, H, W), of unit variance."""
    pixel = np.arange(SIDE)
    columns = waves.number[:, :1] * (pixel - shift[:, None, :1])  # (T, M, W)
    rows = waves.number[:, 1:] * (pixel - shift[:, None, 1:]) + waves.phase[:, None]  # (T, M, H)
    total = np.matmul(np.exp(1j * rows).transpose(0, 2, 1), np.exp(1j * columns)).real  # (T, H, M) (T, M, W)
    return total * np.sqrt(2 / len(waves.phase))


def _cover(disc: Disc) -> np.ndarray:
    """How much of each pixel the disc covers: (H, W), 0 to 1."""
    pixel = np.arange(SIDE)
    distance = np.hypot(pixel - disc.centre[0], pixel[:, None] - disc.centre[1])
    return np.clip((RADIUS - distance) / EDGE + 0.5, 0, 1)


def _shift(direction: Optional[int]) -> np.ndarray:
    """How far waves have drifted at each frame: (T, 2) pixels to the right, down."""
    if direction is None:
        return np.zeros((FRAMES, 2))
    angle = direction * np.pi / 2
    return SPEED * np.arange(FRAMES)[:, None] * np.array([np.cos(angle), -np.sin(angle)])


def draw(scene: Scene) -> np.ndarray:
    """The frames of a scene: (T, H, W, 3) uint8 RGB."""
    level = BACKDROP_CONTRAST * np.tanh(GAIN * _field(scene.backdrop, _shift(None)))  # (T, H, W)
    for disc in scene.discs:
        cover = _cover(disc)
        level = (1 - cover) * level + cover * CONTRAST * np.tanh(GAIN * _field(disc.waves, _shift(disc.direction)))
    return np.clip(np.rint(scene.tint + level[..., None]), 0, 255).astype(np.uint8)  # (T, H, W, 3)


def render(root: str) -> bool:
    """Renders the set below `root`, laid out as UCF-101, where it is not there yet; as rendering.render_once."""
    return render_once(root, FILMS, _render_all)


def _render_all(folder: str) -> None:
    for relation, group, clip, path in each_film(folder, list(RELATIONS), GROUPS, CLIPS_PER_GROUP):
        write_film(path, draw(make_scene(relation, group, clip)), FRAMES_PER_SECOND)
