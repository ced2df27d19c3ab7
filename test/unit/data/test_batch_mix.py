"""Mixing by hand-computed numbers, boxes against shares, draws and their keys, what is off stays untouched."""
import math
from collections import Counter

import numpy as np
import pytest
import torch
from features import HALF_ON_CPU, assert_close

from data.batch_mix import (
    BatchMix,
    Box,
    MixOptions,
    blend,
    draw_erasing,
    draw_mix,
    erase,
    partners,
    smooth_labels,
)

LEAST, MOST = -0.486274 / 0.234827, 0.592157 / 0.234827  # of all channels: (0 - 124 / 255) / std, (1 - 104 / 255) / std
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device")])]
HALVES = [torch.float32] + ([torch.float16, torch.bfloat16] if HALF_ON_CPU else [])


def clips(num=4, size=(3, 2, 24, 32), dtype=torch.float32):
    return torch.randn((num,) + size, generator=torch.Generator().manual_seed(3)).to(dtype)


def mixed(options, clip, label, step=1, seed=7, slot=0, num_classes=5):
    return BatchMix(MixOptions(**options), num_classes, seed)(clip.clone(), label, step, slot)


def step_with(wanted, options):
    """The first step whose mix is a CutMix (wanted) or a mixup, and its draw."""
    for step in range(1, 100):
        mix = BatchMix(MixOptions(**options), 5, 7)
        share, box = draw_mix(mix._state(step, 0, "mix"), mix.options, 24, 32)
        if (box is not None and box.area > 0) == wanted:
            return step, share, box
    raise AssertionError("no such step")


def test_blend_by_hand():
    out = blend(torch.tensor([[1.0, 2.0], [5.0, 10.0], [0.0, 4.0], [8.0, 0.0]]), 0.75)
    assert out.tolist() == [[2.0, 4.0], [4.0, 8.0], [2.0, 3.0], [6.0, 1.0]]


def test_pairs_are_neighbours_and_an_odd_last_one_takes_the_one_before():
    assert partners(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
    assert partners(torch.arange(5)).tolist() == [1, 0, 3, 2, 3]
    assert partners(torch.arange(6).view(3, 2)).tolist() == [[2, 3], [0, 1], [2, 3]]


def test_smoothed_labels_by_hand():
    out = smooth_labels(torch.tensor([2, 0]), 4, 0.2)
    assert_close(out, torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]]))


@pytest.mark.parametrize("dtype", HALVES)
def test_mixup_of_a_batch(dtype):
    clip, label = clips(dtype=dtype), torch.tensor([0, 3, 2, 2])
    step, share, _ = step_with(False, {"mixup": 0.8})
    out, target = mixed({"mixup": 0.8, "label_smoothing": 0.1}, clip, label, step)
    assert out.dtype == dtype and target.dtype == torch.float32
    wide = clip.double()
    expected = share * wide + (1 - share) * wide[[1, 0, 3, 2]]
    assert (out.double() - expected).abs().max() < {torch.float32: 1e-6, torch.float16: 4e-3}.get(dtype, 4e-2)
    rows = [[0.02] * 5 for _ in range(4)]
    for row, first, second in ((0, 0, 3), (1, 3, 0), (2, 2, 2), (3, 2, 2)):
        rows[row][first] += 0.9 * share
        rows[row][second] += 0.9 * (1 - share)
    assert_close(target, torch.tensor(rows))


@pytest.mark.parametrize("dtype", HALVES)
def test_cutmix_takes_a_box_of_the_partner_in_all_frames_and_shares_by_its_area(dtype):
    clip, label = clips(dtype=dtype), torch.tensor([0, 3, 2, 1])
    step, share, box = step_with(True, {"cutmix": 1.0})
    out, target = mixed({"cutmix": 1.0}, clip, label, step)
    swapped = clip[[1, 0, 3, 2]]
    own, other = out == clip, out == swapped
    assert (own | other).all()
    inside = other.all(0).all(0).all(0)  # (H, W)
    assert inside.sum().item() == box.area and inside[box.top:box.bottom, box.left:box.right].all()
    assert share == pytest.approx(1 - box.area / (24 * 32))
    assert target[0].tolist() == pytest.approx([share, 0, 0, 1 - share, 0], abs=1e-6)
    assert_close(target.sum(1), torch.ones(4))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_the_mixup_share_is_beta(alpha):
    """Mean ½ and variance 1 / (4 (2 alpha + 1)) of Beta(alpha, alpha), over steps."""
    mix = BatchMix(MixOptions(mixup=alpha), 5, 1)
    shares = np.array([draw_mix(mix._state(step, 0, "mix"), mix.options, 24, 32)[0] for step in range(4000)])
    assert shares.min() >= 0 and shares.max() <= 1
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_cutmix_boxes_lie_in_the_frame_and_the_edges_only_add_to_the_share():
    shares, state, same = [], np.random.RandomState(1), np.random.RandomState(1)
    for _ in range(4000):
        same.set_state(state.get_state())
        share, box = draw_mix(state, MixOptions(cutmix=1.0), 24, 32)
        drawn = same.beta(1.0, 1.0)
        assert 0 <= box.top <= box.bottom <= 24 and 0 <= box.left <= box.right <= 32
        assert share == 1 - box.area / (24 * 32) and share >= drawn - 1e-9
        shares.append(share)
    # E[1 - area] by integration: an edge of relative length r, its centre uniform, keeps r - r² / 4 on average.
    lengths = np.sqrt(1 - (np.arange(10000) + 0.5) / 10000)
    assert np.mean(shares) == pytest.approx(1 - np.mean((lengths - lengths**2 / 4) ** 2), abs=0.05)


def test_with_both_each_batch_takes_one_half_of_them_each():
    mix = BatchMix(MixOptions(mixup=0.8, cutmix=1.0), 5, 1)
    boxes = [draw_mix(mix._state(step, 0, "mix"), mix.options, 24, 32)[1] for step in range(2000)]
    assert sum(box is None for box in boxes) == pytest.approx(1000, abs=100)


def test_erased_boxes_have_the_published_ranges():
    areas, ratios, keys, edges, state = [], [], set(), Counter(), np.random.RandomState(1)
    for _ in range(3000):
        drawn = draw_erasing(state, 1.0, 224, 160)
        if drawn is not None:
            box, key = drawn
            assert 0 <= box.top < box.bottom <= 224 and 0 <= box.left < box.right <= 160 and 0 <= key < 2**32
            areas.append(box.area / (224 * 160))
            ratios.append(math.log((box.bottom - box.top) / (box.right - box.left)))
            keys.add(key)
            edges[box.top == 0, box.bottom == 224] += 1
    assert len(areas) > 2990 and len(keys) == len(areas)
    assert min(areas) == pytest.approx(0.02, abs=0.002) and max(areas) == pytest.approx(1 / 3, abs=0.01)
    assert np.mean(areas) == pytest.approx(0.17, abs=0.01)
    assert max(map(abs, ratios)) < math.log(1 / 0.3) + 0.06
    assert edges[False, False] > 2500 and edges[True, False] and edges[False, True]


@pytest.mark.parametrize("probability", [0.0, 0.25, 1.0])
def test_erasing_happens_as_often_as_asked(probability):
    state = np.random.RandomState(1)
    drawn = [draw_erasing(state, probability, 64, 64) for _ in range(2000)]
    assert sum(found is not None for found in drawn) == pytest.approx(2000 * probability, abs=60)


@pytest.mark.parametrize("dtype", HALVES)
def test_an_erased_box_is_normalised_noise_and_nothing_else_changes(dtype):
    clip = torch.full((3, 4, 24, 32), 9.0, dtype=dtype)
    erase(clip, Box(2, 20, 5, 30), 12345)
    part = clip[:, :, 2:20, 5:30].double()
    assert (clip == 9).sum().item() == 3 * 4 * (24 * 32 - 18 * 25)
    assert part.min() > LEAST - 0.02 and part.max() < MOST + 0.02
    levels = part * 0.234827 + torch.tensor([124, 117, 104]).double().view(3, 1, 1, 1) / 255
    assert levels.mean().item() == pytest.approx(0.5, abs=0.02)
    assert levels.var().item() == pytest.approx(1 / 12, rel=0.06)
    assert (part[:, 0] != part[:, 1]).double().mean() > 0.9  # the noise is another in each frame
    again = torch.full((3, 4, 24, 32), 9.0, dtype=dtype)
    erase(again, Box(2, 20, 5, 30), 12345)
    assert torch.equal(again, clip)


ALL = {"mixup": 0.8, "cutmix": 1.0, "random_erasing": 0.5, "label_smoothing": 0.1}


def test_draws_follow_from_seed_and_step():
    clip, label = clips(8), torch.arange(8) % 5
    whole = mixed(ALL, clip, label, step=4)
    used = BatchMix(MixOptions(**ALL), 5, 7)
    for step in (1, 9, 4):  # a resumed run, or a worker's, has seen other steps
        out = used(clip.clone(), label, step)
    assert torch.equal(out[0], whole[0]) and torch.equal(out[1], whole[1])
    assert not torch.equal(mixed(ALL, clip, label, step=5)[0], whole[0])
    assert not torch.equal(mixed(ALL, clip, label, step=4, seed=8)[0], whole[0])


@pytest.mark.parametrize("world", [2, 4])
def test_slots_with_even_batches_mix_as_the_whole_global_batch_does(world):
    clip, label = clips(8), torch.arange(8) % 5
    for step in range(1, 9):
        whole = mixed(ALL, clip, label, step)
        parts = [mixed(ALL, part, part_label, step, slot=slot) for slot, (part, part_label) in
                 enumerate(zip(clip.chunk(world), label.chunk(world)))]
        assert torch.equal(torch.cat([part for part, _ in parts]), whole[0])
        assert torch.equal(torch.cat([target for _, target in parts]), whole[1])


def test_with_everything_off_clips_and_labels_are_the_same_objects():
    clip, label = clips(), torch.tensor([0, 3, 2, 1])
    before = clip.clone()
    out, target = BatchMix(MixOptions(), 5, 7)(clip, label, 1)
    assert out is clip and target is label and torch.equal(clip, before)
    out, target = mixed({"random_erasing": 1.0}, clip, label)
    assert target is label and not torch.equal(out, clip)


def test_smoothing_alone_leaves_the_clips():
    clip, label = clips(), torch.tensor([0, 3, 2, 1])
    out, target = mixed({"label_smoothing": 0.1}, clip, label)
    assert torch.equal(out, clip) and torch.equal(target, smooth_labels(label, 5, 0.1))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("options", [ALL, {"mixup": 0.8}, {"cutmix": 1.0, "random_erasing": 1.0}])
def test_devices_agree_and_the_host_never_waits(device, options):
    clip, label = clips(6), torch.arange(6) % 5
    moved, moved_label = clip.to(device), label.to(device)
    watch = getattr(torch.cuda, "set_sync_debug_mode", None) if device == "cuda" else None
    for step in range(1, 9):
        if watch:
            watch("error")
        try:
            out, target = mixed(options, moved, moved_label, step)
        finally:
            if watch:
                watch("default")
        expected, shares = mixed(options, clip, label, step)
        assert_close(out.cpu(), expected)
        assert_close(target.cpu(), shares)
