"""A page of sampled training clips as the network sees them, after augmentation: one HTML file, nothing beside it."""
import base64
import html
from typing import Dict, List, Tuple

import cv2
import numpy as np

from data.clip_dataset import ClipDataset, collate_clips
from data.device_transforms import RGB, DeviceTransform
from data.randomness import random_state
from data.transforms import TrainAugmentation
from data.video_list import VideoList

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>%(title)s</title>
<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 1200px; padding: 0 1rem }
body { color: #222; background: #fff }
figure { margin: 0 0 1.2rem } img { width: 100%%; height: auto; display: block; border-radius: 4px }
figcaption { overflow-wrap: anywhere } figcaption small { color: #777 }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #161616 } }
</style>
<h1>%(title)s</h1>
<p>%(words)s</p>
%(figures)s
</html>
"""
FIGURE = ('<figure><img loading="lazy" alt="%(label)s" src="data:image/jpeg;base64,%(data)s">'
          '<figcaption><b>%(label)s</b> <small>%(path)s</small></figcaption></figure>')


def sampled_rows(videos: VideoList, count: int, seed: int) -> List[int]:
    """Up to `count` rows, of as many classes as there are, the same each time."""
    order = random_state(seed, 0, 0, "contact sheet").permutation(len(videos))
    seen: Dict[int, int] = {}
    turns = []
    for row in order.tolist():
        label = videos.label(row)
        seen[label] = seen.get(label, -1) + 1
        turns.append((seen[label], row))  # the first of each class before the second of any
    turns.sort(key=lambda turn: turn[0])
    return [row for _, row in turns[:count]]


def contact_sheet(title: str, class_names: List[str], videos: VideoList, clip: Tuple[int, int, int],
                  short_side: Tuple[int, int], count: int, seed: int = 1) -> str:
    """The page, of at most `count` clips; `clip` = (frames, their distance, pixels of the crop). Unreadable rows show
    the clip that replaces them.
    """
    length, interval, crop = clip
    dataset = ClipDataset(videos, length, interval, TrainAugmentation(crop, short_side), seed, training=True)
    transform, figures = DeviceTransform(), []
    for row in sampled_rows(videos, count, seed):
        sample = dataset[(0, row)]
        strip = seen_by_network(transform(collate_clips([sample]))[0].numpy())
        data = cv2.imencode(".jpg", strip[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
        figures.append(FIGURE % {"label": html.escape(class_names[sample.label]),
                                 "path": html.escape(videos.relative(sample.index)),
                                 "data": base64.b64encode(data.tobytes()).decode("ascii")})
    words = ("%d of %d training videos. Each strip is one clip of %d frames, %d apart, %d × %d pixels: scaled, "
             "cropped, flipped, colours shifted and noise added, as in the first epoch."
             % (len(figures), len(videos), length, interval, crop, crop))
    return PAGE % {"title": html.escape(title), "words": words, "figures": "\n".join(figures)}


def seen_by_network(clip: np.ndarray) -> np.ndarray:
    """A normalised clip (C, T, H, W) as a picture of its frames side by side: (H, T*W, C) uint8."""
    levels = (clip * RGB.std + np.asarray(RGB.mean, np.float32)[:, None, None, None]) * 255
    channels, length, height, width = clip.shape
    frames = np.rint(levels).clip(0, 255).astype(np.uint8).transpose(2, 1, 3, 0)  # (H, T, W, C)
    return np.ascontiguousarray(frames.reshape(height, length * width, channels))
