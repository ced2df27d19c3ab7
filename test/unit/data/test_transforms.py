"""The host's transforms against the golden arrays, draw by draw."""
import hashlib
import json

import cv2
import numpy as np
import pytest
from film_numbers import UNIT

from data import transforms
from data.transforms import Cut, EvalTransform, FrameCutter, TrainAugmentation, Window, cut_clip, whole_frame

ARRAYS = np.load(str(UNIT / "golden" / "e_transforms.npz"))
FACTS = json.loads((UNIT / "golden" / "e_transforms.json").read_text())["fingerprints"]
CLIP = ARRAYS["clip_60x80x2"]  # (60, 80, 6): two frames of R, G, B
SEEDS = pytest.mark.parametrize("seed", [0, 42])


def frames_of(image):
    """(H, W, 3 T), frame-major -> (T, H, W, 3)."""
    return np.ascontiguousarray(image.reshape(image.shape[0], image.shape[1], -1, 3).transpose(2, 0, 1, 3))


def image_of(frames):
    return frames.transpose(1, 2, 0, 3).reshape(frames.shape[1], frames.shape[2], -1)


def check(name, image):
    """The image is the golden one, bit for bit, in the golden file's own type."""
    assert list(image.shape) == FACTS[name]["shape"] and np.array_equal(image, image.astype(FACTS[name]["dtype"]))
    image = image.astype(FACTS[name]["dtype"])
    assert hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() == FACTS[name]["sha256"], name


def resized(clip, width, height):
    return cut_clip(clip, Cut(width, height, Window(0, 0, width, height)))


@SEEDS
def test_scale(seed):
    state = np.random.RandomState(seed)
    for call in range(3):
        width, height = transforms.draw_scale(80, 60, (40, 70), state)
        image = image_of(resized(frames_of(CLIP), width, height))
        name = "RandomScale_s%d_c%d" % (seed, call)
        assert np.array_equal(image, ARRAYS[name])
        check(name, image)


@SEEDS
def test_crop(seed):
    state = np.random.RandomState(seed)
    for call in range(3):
        left, top = transforms.draw_crop(80, 60, (48, 40), state)
        check("RandomCrop_s%d_c%d" % (seed, call), CLIP[top:top + 40, left:left + 48])


@SEEDS
def test_flip(seed):
    state = np.random.RandomState(seed)
    for call in range(3):
        flip = transforms.draw_flip(state)
        check("RandomHorizontalFlip_s%d_c%d" % (seed, call), CLIP[:, ::-1] if flip else CLIP)


@SEEDS
def test_center_crop_and_resize(seed):
    left, top = transforms.center_crop(80, 60, (48, 41))
    check("CenterCrop_s%d_c0" % seed, CLIP[top:top + 41, left:left + 48])
    for name, side in (("int", 48), ("noop", 60), ("up", 90)):
        size = transforms.short_side_size(80, 60, side)
        image = image_of(resized(frames_of(CLIP), *size))
        check("Resize_%s_s%d_c0" % (name, seed), image)


@SEEDS
def test_hls_offsets(seed):
    state = np.random.RandomState(seed)
    for call in range(3):
        offsets = np.array(transforms.draw_hls(state))
        hls = [cv2.cvtColor(frame, cv2.COLOR_RGB2HLS).astype(int) + offsets for frame in frames_of(CLIP)]
        hls = np.clip(hls, 0, [180, 255, 255]).astype(np.uint8)
        check("RandomHLS_s%d_c%d" % (seed, call), image_of(np.stack([cv2.cvtColor(f, cv2.COLOR_HLS2RGB) for f in hls])))


@SEEDS
def test_jitter_range(seed):
    state = np.random.RandomState(seed)
    for call in range(3):
        low, high = transforms.draw_jitter(state)
        noise = state.uniform(low, high, CLIP.shape).astype(np.float32)
        check("PixelJitter_s%d_c%d" % (seed, call), CLIP + noise)


def test_half_a_pixel_goes_to_the_even_side():
    assert [transforms.center_crop(224 + spare, 224, (224, 224))[0] for spare in range(8)] == [0, 0, 1, 2, 2, 2, 3, 4]


def test_short_side_size():
    assert transforms.short_side_size(320, 240, 256) == (341, 256)
    assert transforms.short_side_size(240, 320, 256) == (256, 341)
    assert transforms.short_side_size(100, 100, 256) == (256, 256)


@pytest.mark.parametrize("height, width", [(240, 320), (320, 240), (17, 90), (32, 32)])
def test_crop_always_fits(height, width):
    augmentation = TrainAugmentation(32, (32, 48))
    for seed in range(200):
        cut = augmentation.cut(height, width, lambda name, seed=seed: np.random.RandomState(seed))
        assert 0 <= cut.window.left <= cut.width - 32 and 0 <= cut.window.top <= cut.height - 32
        assert 33 <= min(cut.width, cut.height) <= 49 and cut.window[2:] == (32, 32)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(50, 41), (60, 40)], ids=["scaled", "same"])
def test_a_cut_is_scale_then_crop_then_flip_of_every_frame(flip, size):
    clip = np.random.RandomState(0).randint(0, 256, (3, 40, 60, 3)).astype(np.uint8)
    got = cut_clip(clip, Cut(*size, window=Window(7, 5, 24, 24), flip=flip))
    expected = cv2.resize(image_of(clip), size, interpolation=cv2.INTER_LINEAR)[5:29, 7:31]
    assert got.flags.c_contiguous
    assert np.array_equal(image_of(got), expected[:, ::-1] if flip else expected)
    before, out = clip.copy(), np.empty((24, 24, 3), np.uint8)
    cutter = FrameCutter(Cut(*size, window=Window(7, 5, 24, 24), flip=flip), 40, 60)
    for frame, same in zip(clip, got):
        cutter.apply(np.ascontiguousarray(frame[..., ::-1]), out, blue_first=True)
        assert np.array_equal(out, same)
    assert np.array_equal(clip, before)


def test_a_whole_frame_is_a_copy():
    clip = np.random.RandomState(0).randint(0, 256, (2, 7, 9, 3)).astype(np.uint8)
    got = cut_clip(clip, whole_frame(7, 9))
    assert np.array_equal(got, clip) and not np.shares_memory(got, clip)


@pytest.mark.parametrize("height, width", [(240, 320), (320, 240), (96, 128), (57, 411), (30, 31)])
def test_a_window_equals_resizing_and_then_cutting(height, width):
    state = np.random.RandomState(height)
    frame = state.randint(0, 256, (1, height, width, 3)).astype(np.uint8)
    for crop in (224, 24):
        augmentation = TrainAugmentation(crop, (crop, 3 * crop // 2))
        for _ in range(20):
            cut = augmentation.cut(height, width, lambda name: state)._replace(flip=False)
            scaled = cv2.resize(frame[0], (cut.width, cut.height), interpolation=cv2.INTER_LINEAR)
            left, top = cut.window[:2]
            assert np.array_equal(cut_clip(frame, cut)[0], scaled[top:top + crop, left:left + crop])


def test_eval_keeps_the_middle():
    clip = np.arange(2 * 32 * 48 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 48, 3)
    cut = EvalTransform(28, 32).cut(32, 48)
    assert cut == (48, 32, Window(10, 2, 28, 28), False)
    assert np.array_equal(cut_clip(clip, cut), clip[:, 2:30, 10:38])


def test_crop_beyond_the_short_side_is_refused():
    with pytest.raises(ValueError, match="--crop-size 224 does not fit"):
        EvalTransform(224, 200)
    with pytest.raises(ValueError, match="--crop-size 224 does not fit"):
        TrainAugmentation(224, (200, 340))
    with pytest.raises(ValueError, match="--crop-size must be at least 1"):
        TrainAugmentation(0, (0, 340))


def whole_views(clip, crop, short_side, crops, flips):
    """The windows by another way: the whole clip resized, then sliced."""
    height, width = clip.shape[1:3]
    long = short_side * max(height, width) // min(height, width)
    clip = resized(clip, long, short_side) if width >= height else resized(clip, short_side, long)
    middle, parts = round((short_side - crop) / 2), []
    for number in range(crops):
        place = round((long - crop) / 2) if crops == 1 else round((long - crop) * number / (crops - 1))
        rows, columns = (middle, place) if width >= height else (place, middle)
        parts.append(clip[:, rows:rows + crop, columns:columns + crop])
    return parts + [part[:, :, ::-1] for part in parts] if flips else parts


@pytest.mark.parametrize("crops, flips", [(1, True), (2, False), (3, True), (4, False)])
@pytest.mark.parametrize("turned", [False, True])
def test_windows_along_the_longer_side(crops, flips, turned):
    clip = frames_of(CLIP).transpose(0, 2, 1, 3) if turned else frames_of(CLIP)  # 80 wide or high, 60 the other
    transform = EvalTransform(32, 40, crops, flips)
    windows = transform.windows(cut_clip(clip, transform.cut(*clip.shape[1:3])))
    expected = whole_views(clip, 32, 40, crops, flips)
    assert transform.views == len(expected) and np.array_equal(windows, np.concatenate(expected))
    if crops == 3:
        one = EvalTransform(32, 40)
        assert np.array_equal(windows[2:4], cut_clip(clip, one.cut(*clip.shape[1:3])))


def test_a_mirrored_window_of_flow_points_the_other_way():
    flow = np.zeros((1, 40, 40, 2), np.uint8)
    flow[..., 0], flow[:, :, :20, 1] = 200, 90
    plain, mirrored = np.split(EvalTransform(40, 40, flips=True).windows(flow), 2)
    assert np.array_equal(plain, flow) and (mirrored[..., 0] == 55).all()
    assert (mirrored[:, :, 20:, 1] == 90).all() and (mirrored[:, :, :20, 1] == 0).all()
