"""Buffers that stay: given out again only once nobody uses them, hardly more of them than were in use."""
import copy

import pytest
import torch

from network.workspace import Workspace, can_keep

needs_keeping = pytest.mark.skipif(not can_keep(), reason="this PyTorch does not tell who uses a storage")
LIKE = torch.empty(0, dtype=torch.float64)
SHAPE = (4, 128, 512)
BYTES = 8 * 4 * 128 * 512


def test_tensors_are_plain_and_apart():
    space = Workspace()
    first, second = space.empty(SHAPE, LIKE), space.empty(SHAPE, LIKE)
    assert first.shape == SHAPE and first.dtype == torch.float64 and first.is_contiguous() and not first._is_view()
    first.fill_(1), second.fill_(2)
    assert first.sum() == first.numel()
    assert space.empty((2, 3), LIKE).shape == (2, 3)


@needs_keeping
def test_a_buffer_comes_back_when_its_last_view_is_gone():
    space = Workspace()
    tensor = space.empty(SHAPE, LIKE)
    place, view = tensor.data_ptr(), tensor[1:, 2]
    del tensor
    other = space.empty(SHAPE, LIKE)
    assert other.data_ptr() != place
    del view
    assert space.empty(SHAPE, LIKE).data_ptr() == place
    assert space.held_bytes() == 2 * BYTES


@needs_keeping
def test_what_autograd_saved_is_in_use():
    space = Workspace()
    weight = torch.ones(SHAPE, dtype=torch.float64, requires_grad=True)
    tensor = space.empty(SHAPE, LIKE).fill_(3)
    place, product = tensor.data_ptr(), tensor * weight
    del tensor
    assert space.empty(SHAPE, LIKE).data_ptr() != place
    product.sum().backward()
    assert weight.grad.eq(3).all()


@needs_keeping
def test_hardly_more_is_held_than_was_in_use():
    space = Workspace()
    kept = [space.empty(SHAPE, LIKE) for _ in range(3)]
    del kept
    for rows in range(2, 12):
        space.empty((rows,) + SHAPE[1:], LIKE)
        assert space.held_bytes() <= 1.25 * 3 * BYTES


def test_a_copy_is_new():
    space = Workspace()
    space.empty(SHAPE, LIKE)
    assert copy.deepcopy(space).held_bytes() == 0
