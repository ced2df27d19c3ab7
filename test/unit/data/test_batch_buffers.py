"""Rooms for batches: given back when nothing refers to them, never before; other shapes and full rooms do no harm."""
import gc
import pickle

import numpy as np
import pytest
import torch
from features import KEEPS_WORKERS
from film_numbers import FILMS, FRAMES
from torch.utils.data._utils.pin_memory import pin_memory

from data import batch_buffers
from data.batch_buffers import NO_ROOM, BatchInRoom, BatchRooms
from data.clip_dataset import ClipBatch, ClipDataset, ClipSample
from data.loaders import TrainSampler, train_loader
from data.transforms import TrainAugmentation
from data.video_list import VideoList

SHAPE = (2, 3, 4, 5, 3)  # two clips of three frames


def fetch(level, room):
    """A clip of one level, in the room where it has the usual shape."""
    if level < 100:
        room[...] = level
        return ClipSample(room, level, level, (1, 2, 3), (0.0, 1.0), 7, True, (), True)
    return ClipSample(np.full((3, 6, 5, 3), level, np.uint8), level, level, (1, 2, 3), (0.0, 1.0), 7, True, (), True)


def test_a_batch_comes_through_its_room():
    rooms = BatchRooms(2, SHAPE)
    filled = pickle.loads(pickle.dumps(rooms.fill(rooms.take(), [8, 9], fetch)))
    assert isinstance(filled, BatchInRoom) and len(pickle.dumps(filled)) < 2000
    batch = filled.open()
    assert isinstance(batch, ClipBatch) and batch.clip.shape == SHAPE and batch.clip.dtype == torch.uint8
    assert (batch.clip[0] == 8).all() and (batch.clip[1] == 9).all() and batch.label.tolist() == [8, 9]
    short = rooms.fill(rooms.take(), [5], fetch).open()
    assert short.clip.shape == (1,) + SHAPE[1:] and (short.clip == 5).all()


@pytest.mark.parametrize("keep", [lambda batch: batch, lambda batch: batch.clip, lambda batch: batch.clip[1, :, 2],
                                  lambda batch: batch.clip.numpy()[0], lambda batch: batch.clip.permute(0, 4, 1, 2, 3)])
def test_a_room_is_taken_as_long_as_anything_refers_to_it(keep):
    rooms = BatchRooms(1, SHAPE)
    kept = keep(rooms.fill(rooms.take(), [8, 9], fetch).open())
    gc.collect()
    assert rooms.take() == NO_ROOM
    del kept
    gc.collect()
    assert rooms.take() == 0 and rooms.take() == NO_ROOM


def test_rooms_of_batches_that_never_came_are_reclaimed():
    rooms = BatchRooms(3, SHAPE)
    asked = [rooms.take() for _ in range(3)]
    batch = rooms.fill(asked[0], [1, 2], fetch).open()
    rooms.reclaim()
    assert sorted([rooms.take(), rooms.take()]) == sorted(asked[1:]) and rooms.take() == NO_ROOM
    del batch
    gc.collect()
    assert rooms.take() == asked[0]


def test_clips_of_another_shape_are_a_batch_of_their_own():
    rooms = BatchRooms(1, SHAPE)
    batch = rooms.fill(rooms.take(), [200, 201], fetch)
    assert isinstance(batch, ClipBatch) and batch.clip.shape == (2, 3, 6, 5, 3) and (batch.clip[1] == 201).all()
    with pytest.raises(RuntimeError):
        rooms.fill(0, [200, 1], fetch)


def test_a_clip_from_elsewhere_is_copied_into_the_room():
    rooms = BatchRooms(1, SHAPE)
    batch = rooms.fill(rooms.take(), [8, 9], lambda level, room: fetch(level, np.empty_like(room))).open()
    assert (batch.clip[0] == 8).all() and (batch.clip[1] == 9).all()


def test_the_loaders_pinning_thread_opens_a_batch(monkeypatch):
    """As DataLoader's thread does it, with copies in the place of pinned memory, which needs a device."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor.clone())
    rooms = BatchRooms(1, SHAPE)
    batch = pin_memory(pickle.loads(pickle.dumps(rooms.fill(rooms.take(), [8, 9], fetch))))
    assert isinstance(batch, ClipBatch) and (batch.clip[1] == 9).all() and batch.augmented is True
    gc.collect()
    assert rooms.take() == 0  # the copy does not hold the room


def training(rows=26):
    names = sorted(FRAMES)
    videos = VideoList(str(FILMS), [names[row % 6] for row in range(rows)], range(rows))
    return ClipDataset(videos, 4, 5, TrainAugmentation(16, (16, 24)), 5, training=True)


@pytest.mark.skipif(not KEEPS_WORKERS, reason="rooms are for workers that stay")
def test_kept_batches_keep_their_content_and_passes_may_be_left():
    sampler = TrainSampler(26, 2, 0, 1, 5)
    expected = [batch.clip.clone() for batch in train_loader(training(), sampler, 0, False)]
    loader = train_loader(training(), sampler, 2, False)
    for number, _ in enumerate(loader):  # a pass that is left early
        if number == 2:
            break
    kept = list(loader)  # more batches than rooms
    assert len(kept) == 13 and all(torch.equal(batch.clip, clip) for batch, clip in zip(kept, expected))
    assert all(torch.equal(batch.clip, clip) for batch, clip in zip(loader, expected))
    assert all(torch.equal(batch.clip, clip) for batch, clip in zip(kept, expected))
    del kept
    loader.close()


@pytest.mark.skipif(not KEEPS_WORKERS, reason="rooms are for workers that stay")
def test_a_run_needs_no_more_rooms_than_there_are(monkeypatch):
    taken, take = [], BatchRooms.take
    monkeypatch.setattr(batch_buffers.BatchRooms, "take", lambda self: taken.append(take(self)) or taken[-1])
    sampler = TrainSampler(26, 2, 0, 1, 5)
    loader, before = train_loader(training(), sampler, 2, False), None
    for epoch in range(4):
        sampler.set_position(epoch)
        for batch in loader:
            before = batch  # as a prefetcher, one more than is in use
    assert before is not None and len(taken) == 52 and NO_ROOM not in taken
    loader.close()
