"""The batched part of the augmentation on a processor: OpenCV and NumPy, in blocks that the caches hold.

Rounding and order of the sums are those of data/device_transforms.py, which serves every other device.
N clip, C = R, G, B (of flow: x, y), T frame, H, W.
"""
from typing import Any, Optional, Sequence

import cv2
import numpy as np
import torch

from data.randomness import NoiseWords

VALUES_AT_ONCE = 1 << 15
MOST_HUE = 180


class HlsShift:
    """Shifts hue, lightness and saturation of pictures (H, W, C) uint8 of one size, in OpenCV's 8-bit arithmetic."""

    def __init__(self, offsets: Sequence[int], height: int, width: int) -> None:
        shape = (height, width, 3)
        shift = np.clip(np.asarray(offsets), -255, 255)
        self._up = np.empty(shape, np.uint8)  # whole pictures: OpenCV adds them four times as fast as three numbers
        self._up[...] = np.maximum(shift, 0)
        self._down = np.empty(shape, np.uint8)
        self._down[...] = np.maximum(-shift, 0)
        self._most = np.empty(shape, np.uint8)
        self._most[...] = (MOST_HUE, 255, 255)
        self._hls, self._rgb = np.empty(shape, np.uint8), np.empty(shape, np.uint8)

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The shifted picture, valid until the next call."""
        hls = self._hls
        cv2.cvtColor(image, cv2.COLOR_RGB2HLS, dst=hls)
        cv2.add(hls, self._up, dst=hls)  # stops at 255,
        cv2.subtract(hls, self._down, dst=hls)  # at 0,
        cv2.min(hls, self._most, dst=hls)  # hue at 180
        cv2.cvtColor(hls, cv2.COLOR_HLS2RGB, dst=self._rgb)
        return self._rgb


class PixelNoise:
    """One clip's noise: uniform from `low` to `high`, by the word of its key at each position."""

    def __init__(self, words: NoiseWords, key: int, low: np.float32, high: np.float32) -> None:
        self._words, self._key, self._low = words, key, low
        self._scale = (high - low) * np.float32(1 / (1 << 24))
        self._noise = np.empty(VALUES_AT_ONCE, np.float32)

    def add(self, values: np.ndarray, start: int) -> None:
        """Adds the noise from position `start` on to at most VALUES_AT_ONCE float32 values, in place."""
        noise = self._noise[:len(values)]
        np.copyto(noise, self._words.at(self._key, start, len(values)).view(np.int32), casting="unsafe")  # exact
        np.multiply(noise, self._scale, out=noise)
        np.add(noise, self._low, out=noise)
        np.add(values, noise, out=values)


class CpuTransform:
    """A ClipBatch in the host's memory -> the network's input (N, C, T, H, W)."""

    def __init__(self, mean: Sequence[float], std: float) -> None:
        self._mean, self._std = [np.float32(value) for value in mean], np.float32(std)
        self._words = NoiseWords()

    def apply(self, batch: Any, out: torch.Tensor) -> None:
        """Fills `out` (N, C, T, H, W), contiguous, of any floating type."""
        for row, clip in enumerate(batch.clip.numpy()):  # (T, H, W, C)
            shift, noise = None, None
            if batch.augmented:
                self._words.reserve(clip.size)
                shift = HlsShift(batch.hls[row].tolist(), clip.shape[1], clip.shape[2])
                noise = PixelNoise(self._words, int(batch.noise_key[row]), *batch.jitter[row].numpy())
            self._clip(clip, out[row], shift, noise)

    def _clip(self, clip: np.ndarray, out: torch.Tensor, shift: Optional[HlsShift],
              noise: Optional[PixelNoise]) -> None:
        length, height, width, channels = clip.shape
        planes = [np.empty((height, width), np.uint8) for _ in range(channels)]
        buffer = None if out.dtype == torch.float32 else torch.empty(height, width)
        for frame, image in enumerate(clip):
            levels = cv2.split(image if shift is None else shift.apply(image), planes)
            for channel, plane in enumerate(levels):
                target = out[channel, frame]  # (H, W)
                values = target if buffer is None else buffer
                self._plane(plane.reshape(-1), values.numpy().reshape(-1), channel, noise,
                            (channel * length + frame) * height * width)
                if buffer is not None:
                    target.copy_(buffer)

    def _plane(self, levels: np.ndarray, values: np.ndarray, channel: int, noise: Optional[PixelNoise],
               start: int) -> None:
        """Levels of one channel of one picture (H*W,) uint8 -> their place in the output (H*W,) float32."""
        for first in range(0, len(values), VALUES_AT_ONCE):
            part = values[first:first + VALUES_AT_ONCE]
            np.copyto(part, levels[first:first + VALUES_AT_ONCE])
            if noise is not None:
                noise.add(part, start + first)
            np.divide(part, np.float32(255), out=part)
            np.subtract(part, self._mean[channel], out=part)
            np.divide(part, self._std, out=part)
