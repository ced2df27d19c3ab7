"""Draws three twin films of the data set relations: `python benchmarks/relations_picture.py FILE.png`

A row for each class, a column for each frame of a clip; arrows in the first column say where the discs' waves drift.
"""
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dataset import relations

GROUP, CLIP, SCALE, SHOWN, GAP, MARGIN = 3, 6, 4, 6, 6, 96  # which film; enlargement; frames; pixels
ARROW = 16  # pixels of half an arrow


def picture() -> np.ndarray:
    """The picture: (H, W, 3) uint8 RGB."""
    side = relations.SIDE * SCALE
    rows = []
    for relation in relations.RELATIONS:
        scene = relations.make_scene(relation, GROUP, CLIP)
        frames = relations.draw(scene)[:SHOWN * relations.INTERVAL:relations.INTERVAL]
        large = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_NEAREST) for frame in frames]
        for disc in scene.discs:
            if disc.direction is not None:
                middle = (np.array(disc.centre) + 0.5) * SCALE
                angle = disc.direction * np.pi / 2
                way = ARROW * np.array([np.cos(angle), -np.sin(angle)])
                ends = [tuple(int(round(value)) for value in point) for point in (middle - way, middle + way)]
                cv2.arrowedLine(large[0], ends[0], ends[1], (255, 60, 30), 3, cv2.LINE_AA, tipLength=0.4)
        words = np.full((side, MARGIN, 3), 255, np.uint8)
        cv2.putText(words, relation, (4, side // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
        gap = np.full((side, GAP, 3), 255, np.uint8)
        rows += [np.concatenate([words] + [part for frame in large for part in (frame, gap)], axis=1)]
        rows += [np.full((GAP,) + rows[-1].shape[1:], 255, np.uint8)]
    return np.concatenate(rows[:-1], axis=0)


if __name__ == "__main__":
    if not cv2.imwrite(sys.argv[1], picture()[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9]):
        sys.exit("cannot write %s" % sys.argv[1])
