"""What a clip shows, a row each: pictures in colour (RGB), or the optical flow between two pictures (x, y).

A level of flow is 127.5 + flow * 6.375, rounded to even, as dataset/frames.py and the field's tools write it (flow in
pixels, cut to ±20): so the levels of a flow and of its opposite add up to 255, but for no motion at all, which is 128.
"""
from typing import Dict, NamedTuple, Tuple

import numpy as np

NO_MOTION = 128  # level
NEGATED = np.arange(255, -1, -1).astype(np.uint8)  # (256,) level of a flow -> level of its opposite
NEGATED[NO_MOTION] = NO_MOTION  # what stands still stands still in a mirror


class Modality(NamedTuple):
    """The mean of each channel and the deviation by which clips are normalised, of values in [0, 1]; whether colours
    are shifted and noise is added in training.
    """

    mean: Tuple[float, ...]
    std: float
    coloured: bool

    @property
    def channels(self) -> int:
        """Of a clip, as the network takes it."""
        return len(self.mean)


RGB_STD = 1 / (0.0167 * 255)
MODALITIES: Dict[str, Modality] = {
    "rgb": Modality((124 / 255, 117 / 255, 104 / 255), RGB_STD, True),
    # No motion becomes 0, which is also what convolutions pad with; the scale is that of RGB, as in Wang et al. 2016.
    "flow": Modality((NO_MOTION / 255, NO_MOTION / 255), RGB_STD, False),
}
