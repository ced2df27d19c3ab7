"""Draws three twin films of the data set relations: `python benchmarks/relations_picture.py FILE.png`

A row for each class: the film's every second frame; rings in the first one say which two discs pulse.
"""
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset import relations

GROUP, CLIP, SCALE, GAP, MARGIN = 3, 6, 3, 6, 96  # which film; enlargement; pixels
COLOURS = ((220, 60, 40), (40, 110, 220))  # of the rings around the first and the second disc, in the first frame


def picture() -> np.ndarray:
    """The picture: (H, W, 3) uint8 RGB."""
    side = relations.SIDE * SCALE
    rows = []
    for relation in relations.RELATIONS:
        scene = relations.make_scene(relation, GROUP, CLIP)
        frames = relations.draw(scene)[::relations.INTERVAL]
        large = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_NEAREST) for frame in frames]
        for centre, colour in zip(scene.centres, COLOURS):
            middle = tuple(int(round(value)) for value in (centre + 0.5) * SCALE)
            cv2.circle(large[0], middle, int(round((relations.RADIUS + 1) * SCALE)), colour, 2, cv2.LINE_AA)
        words = np.full((side, MARGIN, 3), 255, np.uint8)
        cv2.putText(words, relation, (4, side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
        gap = np.full((side, GAP, 3), 255, np.uint8)
        rows += [np.concatenate([words] + [part for frame in large for part in (frame, gap)], axis=1)]
        rows += [np.full((GAP,) + rows[-1].shape[1:], 255, np.uint8)]
    return np.concatenate(rows[:-1], axis=0)


if __name__ == "__main__":
    if not cv2.imwrite(sys.argv[1], picture()[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        sys.exit("cannot write %s" % sys.argv[1])
