"""The chain for processors: OpenCV's own HLS, the noise of the other devices, equal to their chain bit for bit."""
import cv2
import numpy as np
import pytest
import torch
from test_device_transforms import batch_of, opencv_hls

from data import cpu_transforms
from data.cpu_transforms import HlsShift
from data.device_transforms import DeviceTransform, transform_in_blocks

OFFSETS = [[0, 0, 0], [15, 35, 25], [-15, -35, -25], [-15, 35, 25], [300, -300, 255]]


def clips_of(height, width, count=5, frames=3):
    state = np.random.RandomState(height)
    coarse = state.randint(0, 256, (count * frames, 7, 9, 3)).astype(np.uint8)
    smooth = np.stack([cv2.resize(image, (width, height)) for image in coarse])
    return smooth.reshape(count, frames, height, width, 3)


@pytest.mark.parametrize("offsets", OFFSETS)
def test_the_shift_is_opencvs(offsets):
    noise = np.random.RandomState(0).randint(0, 256, (3, 40, 50, 3)).astype(np.uint8)
    clip = np.concatenate([clips_of(40, 50)[0], noise])
    before, shift = clip.copy(), HlsShift(offsets, 40, 50)
    expected = opencv_hls(clip, offsets)
    assert all(np.array_equal(shift.apply(image), image_expected) for image, image_expected in zip(clip, expected))
    assert np.array_equal(clip, before)


@pytest.mark.parametrize("augmented", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_equals_the_chain_of_other_devices(dtype, augmented, monkeypatch):
    """In one type after the other: that chain's HLS, in torch, agrees with OpenCV on all but rare ties."""
    batch = batch_of(clips_of(37, 41), augmented, OFFSETS[:4] + [[3, 9, -7]])
    expected = torch.empty(5, 3, 3, 37, 41)
    transform_in_blocks(batch, expected)
    out = DeviceTransform(dtype)(batch)
    assert out.dtype == dtype and out.is_contiguous() and out.shape == expected.shape
    near = (out.float() - expected.to(dtype).float()).abs() <= 1e-5
    assert near.float().mean() >= 1 - 1e-3
    if not augmented:
        assert torch.equal(out.double(), expected.to(dtype).double())
    for values in (700, 37 * 41 - 1):
        monkeypatch.setattr(cpu_transforms, "VALUES_AT_ONCE", values)
        assert torch.equal(out.double(), DeviceTransform(dtype)(batch).double())


def test_shapes_may_change_and_a_batch_may_be_empty():
    transform = DeviceTransform()
    for height, width in ((8, 6), (20, 30), (8, 6)):
        batch = batch_of(clips_of(height, width))
        assert torch.equal(transform(batch), DeviceTransform()(batch))
    assert transform(batch_of(np.zeros((0, 2, 8, 8, 3), np.uint8))).shape == (0, 3, 2, 8, 8)
