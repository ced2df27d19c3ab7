"""The device's part of the augmentation, batched: HLS jitter, pixel noise, normalisation, layout.

All functions take clips as (N, C, T, H, W): N clip, C = R, G, B (of flow: x, y), T frame. Values are levels
0..255 until normalised. The HLS arithmetic is OpenCV's 8-bit one: float inside, rounded to whole levels in between. On
a processor OpenCV itself does it, see data/cpu_transforms.py.
"""
from typing import Any, Iterator, Sequence, Tuple

import numpy as np
import torch

from data.cpu_transforms import CpuTransform
from data.modalities import MODALITIES, Modality
from data.randomness import uniform_noise

RGB = MODALITIES["rgb"]
LEVEL = 1 / 255
LEAST_CHROMA = 1.1920929e-07  # below it a pixel is grey
VALUES_AT_ONCE = 1 << 25


def hls_jitter(clip: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Shifts hue, lightness and saturation: whole levels (N, 3, T, H, W) -> the same as float32.

    `offsets` (N, 3) are in OpenCV's 8-bit units, in the order H, L, S; hue is clamped to [0, 180], not wrapped.
    """
    hue, lightness, saturation = _to_hls(clip)
    shift = offsets.to(clip.device, torch.float32).view(-1, 3, 1, 1, 1).unbind(1)  # 3 x (N, 1, 1, 1)
    hue = hue.add_(shift[0]).clamp_(0, 180)
    lightness = lightness.add_(shift[1]).clamp_(0, 255)
    saturation = saturation.add_(shift[2]).clamp_(0, 255)
    return _to_rgb(hue, lightness, saturation)


def pixel_jitter(clip: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Adds `noise` (of the clip's shape, in levels); nothing is clamped. -> float32."""
    return clip.to(torch.float32) + noise


def clip_noise(keys: torch.Tensor, span: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Noise for clips of `shape` (C, T, H, W), uniform in each clip's own range `span` (N, 2) = (low, high)."""
    num = int(np.prod(shape))
    low, high = span.to(torch.float32).unbind(1)
    noise = uniform_noise(keys, num).mul_((high - low).unsqueeze(1)).add_(low.unsqueeze(1))  # (N, C*T*H*W)
    return noise.view(len(keys), *shape)  # (N, C, T, H, W)


def normalize(clip: torch.Tensor, modality: Modality = RGB) -> torch.Tensor:
    """Levels 0..255 -> float32 (value / 255 - mean) / std of each channel of (N, C, T, H, W)."""
    scaled = clip.to(torch.float32).div(255)
    for channel, mean in enumerate(modality.mean):  # numbers: a tensor of them would be copied to the device each time
        scaled[:, channel].sub_(mean)
    return scaled.div_(modality.std)


class DeviceTransform:
    """A ClipBatch on its device -> the network's input (N, C, T, H, W), contiguous, in `dtype`; `modality` is one of
    MODALITIES.
    """

    def __init__(self, dtype: torch.dtype = torch.float32, modality: str = "rgb") -> None:
        self.dtype = dtype
        self._modality = MODALITIES[modality]
        self._on_cpu = CpuTransform(self._modality.mean, self._modality.std)

    def __call__(self, batch: Any) -> torch.Tensor:
        count, frames, height, width, channels = batch.clip.shape
        assert channels == self._modality.channels, "clips of %d channels" % channels
        out = torch.empty((count, channels, frames, height, width), dtype=self.dtype, device=batch.clip.device)
        if batch.clip.device.type == "cpu":
            self._on_cpu.apply(batch, out)
        else:
            transform_in_blocks(batch, out, self._modality)
        return out


def transform_in_blocks(batch: Any, out: torch.Tensor, modality: Modality = RGB) -> None:
    """Fills `out` (N, C, T, H, W) from a ClipBatch, with what any device can compute."""
    clip = batch.clip.permute(0, 4, 1, 2, 3)  # (N, C, T, H, W)
    if batch.augmented:
        noise = clip_noise(batch.noise_key, batch.jitter, clip.shape[1:])
    for part, frames in _blocks(clip.shape, VALUES_AT_ONCE):
        block = clip[part, :, frames]
        if batch.augmented:
            block = pixel_jitter(hls_jitter(block, batch.hls[part]), noise[part, :, frames])
        out[part, :, frames] = normalize(block, modality)


def _blocks(shape: Sequence[int], values: int) -> Iterator[Tuple[slice, slice]]:
    """Cuts (N, C, T, H, W) into (clips, frames) of about `values` values: whole clips where one fits."""
    per_frame = shape[1] * shape[3] * shape[4]
    frames = max(1, min(shape[2], values // per_frame))
    clips = max(1, values // (per_frame * shape[2]))
    for first in range(0, shape[0], clips):
        for frame in range(0, shape[2], frames):
            yield slice(first, first + clips), slice(frame, frame + frames)


def _to_hls(clip: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(N, 3, ...) levels -> hue (0..180), lightness and saturation (0..255), each (N, ...) float32, whole numbers."""
    red, green, blue = (plane.to(torch.float32).contiguous() * LEVEL for plane in clip.unbind(1))
    most = torch.max(torch.max(red, green), blue)
    least = torch.min(torch.min(red, green), blue)
    chroma, total = most - least, most + least
    grey = chroma <= LEAST_CHROMA
    saturation = chroma / torch.min(total, 2 - total)
    by_red, by_green = most == red, most == green
    slope = torch.where(by_red, green - blue, torch.where(by_green, blue - red, red - green))
    corner = torch.where(by_green, torch.full_like(red, 120), torch.full_like(red, 240))
    corner = torch.where(by_red, (green < blue).to(torch.float32).mul_(360), corner)
    # A true division and a fused product-sum, as OpenCV does them: hue decides many ties between two steps.
    hue = torch.addcmul(corner, slope, torch.full_like(chroma, 60) / chroma)
    hue = hue.mul_(0.5).round_().masked_fill_(grey, 0)
    saturation = saturation.mul_(255).round_().masked_fill_(grey, 0)
    return hue, total.mul_(0.5).mul_(255).round_(), saturation


def _to_rgb(hue: torch.Tensor, lightness: torch.Tensor, saturation: torch.Tensor) -> torch.Tensor:
    """The way back: three (N, ...) of whole 8-bit HLS levels -> (N, 3, ...) float32 RGB levels."""
    light, colour = lightness * LEVEL, saturation * LEVEL
    top = torch.where(light <= 0.5, light * (1 + colour), light + colour - light * colour)
    bottom = light.mul_(2).sub_(top)
    reach = top.sub_(bottom)
    sector = hue * (6 / 180)
    # Along the hue circle of six sectors a channel is at the top, at the bottom, or on a ramp between.
    ramps = ((sector - 3).abs_().sub_(1), 2 - (sector - 2).abs_(), 2 - (sector - 4).abs_())
    planes = [torch.addcmul(bottom, reach, ramp.clamp_(0, 1)) for ramp in ramps]
    return torch.stack(planes, 1).mul_(255).round_().clamp_(0, 255)
