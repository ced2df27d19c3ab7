"""relations: do two distant discs brighten together, opposite each other or a quarter of a beat apart?

Rendered as short films on first use. A film shows two discs that brighten and darken in one rhythm, and a third that
shows still waves. Every film has a twin in each other class: only the beat at which the second disc begins differs. In
each class each disc alone begins at every quarter of the beat equally often, so that neither says anything of the
label. T frame, M wave, H = W pixel.
"""
from typing import Dict, NamedTuple, Tuple

import numpy as np

from dataset.rendering import FilmSet, each_film, keyed_draws, render_once, write_film

FILMS = FilmSet('relations', 'relations version 1\n', 'about 35 MB and ten seconds')
GROUPS, CLIPS_PER_GROUP = 25, 32  # a multiple of 8 has every quarter, both before and behind, in each group
FRAMES, SIDE, FRAMES_PER_SECOND = 16, 40, 12.0
BEAT = 8  # frames from bright to bright
INTERVAL = 2  # frames between those of a clip: four clip frames see a whole beat
RADIUS, EDGE = 6.5, 1.0  # pixels: of a disc, and how soft its edge is
BORDER, APART, ASIDE = 8.0, 20.0, 13.0  # pixels: centres to the picture's edge, first to second disc, third to both
SHORTEST, LONGEST = 5.0, 10.0  # wavelengths in pixels, of the third disc
WAVES, BACKDROP_WAVES, BACKDROP_LONGEST = 6, 8, 40.0
CONTRAST, BACKDROP_CONTRAST, GAIN = 90.0, 20.0, 1.2

# In label order: quarters of a beat from the first disc's beginning to the second's. A mirrored film keeps its class.
RELATIONS: Dict[str, Tuple[int, int]] = {'Opposite': (2, 2), 'Quarter': (1, 3), 'Together': (0, 0)}


class Waves(NamedTuple):
    """A still texture: the sum of M waves."""

    number: np.ndarray  # (M, 2) radians a pixel to the right, down
    phase: np.ndarray  # (M,) radians


class Scene(NamedTuple):
    """All that a film shows: the first two discs pulse, the third shows waves."""

    centres: np.ndarray  # (3, 2) pixels from the left, from the top
    quarters: Tuple[int, int]  # of a beat, at which the first and the second disc begin; 0 is bright
    ahead: float  # of a quarter, 0 to 1, by which both begin later
    third: Waves
    backdrop: Waves
    tint: np.ndarray  # (3,) mean red, green and blue level, shared by a group


def relation_of(scene: Scene) -> str:
    """The class of a scene, from the beginnings of its two pulsing discs."""
    apart = (scene.quarters[1] - scene.quarters[0]) % 4
    return next(name for name, quarters in RELATIONS.items() if apart in quarters)


def make_scene(relation: str, group: int, clip: int) -> Scene:
    """What a film shows. All but the second disc's beginning is the same in every class; group and clip from 1."""
    random = keyed_draws('relations g%02d c%02d' % (group, clip))
    tint = 118.0 + keyed_draws('relations look %d' % group).uniform(-20, 20, 3)
    centres, ahead = _places(random), float(random.uniform())
    third = _waves(random, WAVES, LONGEST)
    backdrop = _waves(random, BACKDROP_WAVES, BACKDROP_LONGEST)
    first, side = (clip - 1) % 4, (clip - 1) // 4 % 2
    return Scene(centres, (first, (first + RELATIONS[relation][side]) % 4), ahead, third, backdrop, tint)


def _places(random: np.random.RandomState) -> np.ndarray:
    """Centres of the three discs, (3, 2) pixels: the first two far apart, the third away from both."""
    while True:
        places = random.uniform(BORDER, SIDE - 1 - BORDER, (3, 2))
        gaps = np.linalg.norm(places - places[[1, 2, 0]], axis=1)  # first to second, second to third, third to first
        if gaps[0] >= APART and gaps[1:].min() >= ASIDE:
            return places


def _waves(random: np.random.RandomState, count: int, longest: float) -> Waves:
    """Waves of all directions; their lengths are spread evenly over the octaves."""
    length = SHORTEST * (longest / SHORTEST) ** ((np.arange(count) + random.uniform()) / count)  # (M,)
    angle = 2 * np.pi * (random.permutation(count) + random.uniform()) / count
    number = 2 * np.pi / length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (M, 2)
    return Waves(number, 2 * np.pi * random.uniform(size=count))


def _texture(waves: Waves) -> np.ndarray:
    """The sum of the waves, squashed: (H, W), within ±1."""
    pixel = np.arange(SIDE)
    columns = waves.number[:, :1] * pixel  # (M, W)
    rows = waves.number[:, 1:] * pixel + waves.phase[:, None]  # (M, H)
    total = np.matmul(np.exp(1j * rows).T, np.exp(1j * columns)).real  # (H, M) (M, W) -> (H, W)
    return np.tanh(GAIN * np.sqrt(2 / len(waves.phase)) * total)


def _cover(centre: np.ndarray) -> np.ndarray:
    """How much of each pixel a disc covers: (H, W), 0 to 1."""
    pixel = np.arange(SIDE)
    distance = np.hypot(pixel - centre[0], pixel[:, None] - centre[1])
    return np.clip((RADIUS - distance) / EDGE + 0.5, 0, 1)


def brightness(quarter: int, ahead: float) -> np.ndarray:
    """Of a pulsing disc in each frame: (T,), within ±1."""
    return np.cos(2 * np.pi * (np.arange(FRAMES) / BEAT + (quarter + ahead) / 4))


def draw(scene: Scene) -> np.ndarray:
    """The frames of a scene: (T, H, W, 3) uint8 RGB."""
    level = np.repeat(BACKDROP_CONTRAST * _texture(scene.backdrop)[None], FRAMES, axis=0)  # (T, H, W)
    pulses = [brightness(quarter, scene.ahead)[:, None, None] for quarter in scene.quarters]  # 2 x (T, 1, 1)
    for centre, shown in zip(scene.centres, pulses + [_texture(scene.third)]):
        cover = _cover(centre)
        level = (1 - cover) * level + cover * CONTRAST * shown  # (T, H, W)
    return np.clip(np.rint(scene.tint + level[..., None]), 0, 255).astype(np.uint8)  # (T, H, W, 3)


def render(root: str) -> bool:
    """Renders the set below `root`, laid out as UCF-101, where it is not there yet; as rendering.render_once."""
    return render_once(root, FILMS, _render_all)


def _render_all(folder: str) -> None:
    for relation, group, clip, path in each_film(folder, list(RELATIONS), GROUPS, CLIPS_PER_GROUP):
        write_film(path, draw(make_scene(relation, group, clip)), FRAMES_PER_SECOND)
