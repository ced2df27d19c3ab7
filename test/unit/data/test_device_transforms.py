"""The batched transforms: golden pipelines end to end, HLS against OpenCV, noise in its range, layout and types."""
import json
import sys

import cv2
import numpy as np
import pytest
import torch
from film_numbers import UNIT

from data import device_transforms
from data.clip_dataset import ClipBatch
from data.device_transforms import (
    DeviceTransform,
    clip_noise,
    hls_jitter,
    normalize,
    pixel_jitter,
    transform_in_blocks,
)
from data.transforms import EvalTransform, TrainAugmentation, cut_clip

sys.path.insert(0, str(UNIT / "golden"))
import formula

ARRAYS = np.load(str(UNIT / "golden" / "e_transforms.npz"))
FACTS = json.loads((UNIT / "golden" / "e_transforms.json").read_text())["fingerprints"]
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device")])]


def frames_of(image):
    """(H, W, 3 T), frame-major -> (T, H, W, 3)."""
    return np.ascontiguousarray(image.reshape(image.shape[0], image.shape[1], -1, 3).transpose(2, 0, 1, 3))


def planar(frames):
    """(T, H, W, 3) -> (1, 3, T, H, W) tensor."""
    return torch.from_numpy(np.ascontiguousarray(frames)).unsqueeze(0).permute(0, 4, 1, 2, 3)


def batch_of(clips, augmented=True, hls=None):
    n = len(clips)
    return ClipBatch(torch.as_tensor(clips), torch.zeros(n, dtype=torch.int64), torch.arange(n),
                     torch.zeros(n, 3, dtype=torch.int64) if hls is None else torch.tensor(hls),
                     torch.tensor([[-12.5, 3.25]] * n), torch.arange(n) + 5, torch.ones(n, dtype=torch.bool), (),
                     augmented)


def opencv_hls(clip, offsets):
    """The recipe's HLS jitter of one clip (T, H, W, 3), by OpenCV."""
    hls = cv2.cvtColor(clip.reshape(-1, clip.shape[2], 3), cv2.COLOR_RGB2HLS).astype(int) + np.array(offsets)
    hls = np.clip(hls, 0, [180, 255, 255]).astype(np.uint8)
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB).reshape(clip.shape)


def check_golden(name, values):
    assert np.abs(values[:, ::3, ::8, ::8] - ARRAYS[name]).max() <= 1e-6
    total, norm, dot = FACTS[name]["fp"]
    got = formula.fingerprint(name, values)
    assert got == pytest.approx([total, norm, dot], rel=1e-6, abs=1e-3)


@pytest.mark.parametrize("height, width", [(240, 320), (320, 240)])
def test_training_chain_as_the_reference(height, width):
    clip = frames_of(formula.make_clip(height, width, 8))
    states = {name: np.random.RandomState(1 + i) for i, name in enumerate(("scale", "crop", "flip", "hls", "jitter"))}
    augmentation = TrainAugmentation(224, (224, 340))
    for call in range(2):
        cut, colour = augmentation.cut(height, width, states.__getitem__), augmentation.colour(states.__getitem__)
        noise = states["jitter"].uniform(*colour.jitter, (224, 224, 24)).astype(np.float32)
        crop = planar(cut_clip(clip, cut))
        out = normalize(pixel_jitter(hls_jitter(crop, torch.tensor([colour.hls])), planar(frames_of(noise))))
        check_golden("pipeline_train_%dx%d_c%d" % (height, width, call), out[0].numpy())


@pytest.mark.parametrize("height, width", [(240, 320), (320, 240)])
def test_evaluation_chain_as_the_reference(height, width):
    clip = cut_clip(frames_of(formula.make_clip(height, width, 8)), EvalTransform(224, 256).cut(height, width))
    out = DeviceTransform()(batch_of(clip[None], augmented=False))
    check_golden("pipeline_val_%dx%d_c0" % (height, width), out[0].numpy())


def test_normalize_as_the_reference():
    out = normalize(planar(frames_of(ARRAYS["clip_60x80x2"])))
    assert np.abs(out[0].numpy() - ARRAYS["Normalize_s0_c0"]).max() <= 1e-6
    white = normalize(torch.full((1, 3, 1, 1, 1), 255.0)).flatten().tolist()
    assert white == pytest.approx([(1 - m / 255) * 0.0167 * 255 for m in (124, 117, 104)], rel=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_hls_equals_opencv(device):
    """Within one level on 99.99 % of the values: random pixels, ramps, greys, faces of the colour cube."""
    state = np.random.RandomState(0)
    a, b = np.mgrid[0:256, 0:256].astype(np.uint8)
    random = state.randint(0, 256, (256, 256, 3)).astype(np.uint8)
    ramps = np.stack([a, b, (a // 2 + b // 2).astype(np.uint8)], -1)
    greys = np.stack([a, a, np.minimum(a + (b > 128), 255).astype(np.uint8)], -1)
    flat = np.stack([np.full_like(a, 255), a, b], -1)
    few = state.choice(np.array([0, 1, 2, 64, 127, 128, 254, 255], np.uint8), (256, 256, 3))
    clip = np.stack([random, ramps, ramps[..., ::-1], greys, flat, flat[..., ::-1], flat[..., [1, 0, 2]], few])
    offsets = [[0, 0, 0], [15, 35, 25], [-15, -35, -25], [-15, 35, 25], [7, -20, 13], [1, 0, 0], [0, -1, 1]]
    batch = torch.from_numpy(clip).to(device).unsqueeze(0).permute(0, 4, 1, 2, 3).expand(len(offsets), -1, -1, -1, -1)
    got = hls_jitter(batch, torch.tensor(offsets, device=device)).permute(0, 2, 3, 4, 1).cpu().numpy()
    expected = np.stack([opencv_hls(clip, offset) for offset in offsets])
    off = np.abs(got - expected)
    assert (off > 1).mean() <= 1e-4
    assert (off > 1).mean(axis=(0, 2, 3, 4)).max() <= 2e-4
    assert off.max() <= 12


def test_greys_stay_grey_and_move_with_lightness_alone():
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 16, 16).expand(1, 3, 1, 16, 16)
    out = hls_jitter(grey, torch.tensor([[15, -20, -9]]))
    assert torch.equal(out, (grey.float() - 20).clamp(0, 255))


def test_hue_is_clamped_not_wrapped():
    # Pure red has lightness 127.5, in 8 bits 128, and so comes back as (255, 1, 1).
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1, 1)
    assert hls_jitter(red, torch.tensor([[-15, 0, 0]])).flatten().tolist() == [255, 1, 1]
    assert hls_jitter(red, torch.tensor([[10, 0, 0]])).flatten().tolist() == [255, 86, 1]


def test_noise_has_each_clips_own_range():
    span = torch.tensor([[-20.0, 0.0], [-1.5, 19.0], [0.0, 0.0]])
    noise = clip_noise(torch.tensor([3, 4, 5]), span, (3, 4, 30, 30))
    assert noise.shape == (3, 3, 4, 30, 30)
    for clip, (low, high) in zip(noise, span.tolist()):
        assert low <= clip.min().item() and clip.max().item() <= high
        assert clip.mean().item() == pytest.approx((low + high) / 2, abs=0.02 * (high - low) + 1e-9)
        assert clip.std().item() == pytest.approx((high - low) / 12**0.5, rel=0.02, abs=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_the_batch_is_its_parts(device, monkeypatch):
    """Each clip's result depends on that clip alone, whatever the batch and however it is cut for speed."""
    clips = np.random.RandomState(1).randint(0, 256, (5, 3, 20, 24, 3)).astype(np.uint8)
    hls = [[3, 9, -7], [-15, 35, 25], [0, 0, 0], [15, -35, -25], [1, 2, 3]]
    whole = batch_of(clips, hls=hls)
    moved = ClipBatch(*(field.to(device) if torch.is_tensor(field) else field for field in whole))
    out = DeviceTransform()(moved)
    assert out.shape == (5, 3, 3, 20, 24) and out.dtype == torch.float32 and out.is_contiguous()
    assert out.device.type == device
    single = ClipBatch(*(field[3:4] if torch.is_tensor(field) else field for field in moved))
    assert torch.equal(out[3:4], DeviceTransform()(single))
    for values in (1, 3000, 10000):  # a frame, two frames, two clips
        monkeypatch.setattr(device_transforms, "VALUES_AT_ONCE", values)
        again = torch.empty_like(out)
        transform_in_blocks(moved, again)
        assert torch.equal(out, again)
    assert torch.allclose(out.cpu(), DeviceTransform()(whole), rtol=0, atol=1e-5)
    shifted = opencv_hls(clips[1], hls[1])
    noise = clip_noise(whole.noise_key[1:2], whole.jitter[1:2], (3, 3, 20, 24))
    assert torch.allclose(out[1:2].cpu(), normalize(planar(shifted) + noise), rtol=0, atol=1e-5)


def test_no_colour_work_without_augmentation():
    clips = np.random.RandomState(1).randint(0, 256, (2, 2, 8, 8, 3)).astype(np.uint8)
    out = DeviceTransform()(batch_of(clips, augmented=False, hls=[[9, 9, 9]] * 2))
    levels = out.permute(0, 2, 3, 4, 1).double() / (0.0167 * 255) + torch.tensor([124.0, 117.0, 104.0]).double() / 255
    assert np.abs(levels.numpy() * 255 - clips).max() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype):
    clips = np.random.RandomState(1).randint(0, 256, (2, 2, 8, 8, 3)).astype(np.uint8)
    out = DeviceTransform(dtype)(batch_of(clips))
    assert out.dtype == dtype
    assert torch.equal(out.double(), DeviceTransform()(batch_of(clips)).to(dtype).double())
