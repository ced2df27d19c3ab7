"""Order, shards and loaders: the same clips on any number of workers and ranks, and after a resume."""
import gc
import multiprocessing
import os
import random

import numpy as np
import pytest
import torch
from film_numbers import FILMS, FRAMES

from data.clip_dataset import ClipBatch, ClipDataset
from data.loaders import PRECISE_BN_EPOCHS, TrainSampler, eval_indices, eval_loader, train_loader, why_readers_died
from data.transforms import EvalTransform, TrainAugmentation
from data.video_list import VideoList
from tools.benchmark_soak import resources

NAMES = sorted(FRAMES)


def videos(rows=26):
    return VideoList(str(FILMS), [NAMES[row % 6] for row in range(rows)], range(rows))


def training(rows=26, seed=5):
    return ClipDataset(videos(rows), 4, 5, TrainAugmentation(16, (16, 24)), seed, training=True)


def evaluation(rows=10):
    return ClipDataset(videos(rows), 4, 5, EvalTransform(16, 20), 0, training=False)


def samples_of(sampler):
    return [sample for batch in sampler for sample in batch]


def tensors(batches):
    """The fields of some batches, each joined along the batch."""
    return [torch.cat(column) for column in zip(*[[f for f in batch if torch.is_tensor(f)] for batch in batches])]


def equal(one, other):
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("num", [12, 13, 23, 101])
def test_ranks_share_an_epoch(world, num):
    batch = 12 // world
    samplers = [TrainSampler(num, batch, rank, world, 7) for rank in range(world)]
    steps = num // 12
    assert all(sampler.steps_per_epoch == len(sampler) == steps for sampler in samplers)
    batches = [list(sampler) for sampler in samplers]
    flat = [sample for per_step in zip(*batches) for part in per_step for sample in part]
    assert all(len(part) == batch for per_rank in batches for part in per_rank)
    assert all(epoch == 0 for epoch, _ in flat)
    assert len(flat) == len(set(flat)) == 12 * steps and {sample for _, sample in flat} <= set(range(num))
    assert flat == samples_of(TrainSampler(num, 12, 0, 1, 7))  # each step holds the same clips on any number of ranks


@pytest.mark.parametrize("world, accumulate", [(1, 4), (2, 2)])
def test_micro_batches_hold_what_as_many_ranks_would(world, accumulate):
    def sampler(rank, world, accumulate):
        sampler = TrainSampler(101, 3, rank, world, 7, accumulate=accumulate)
        sampler.set_position(1, 24, 5)
        assert (sampler.global_batch, sampler.steps_per_epoch, len(sampler)) == (12, 8, 5 * accumulate)
        return list(sampler)

    ranks = [sampler(rank, 4, 1) for rank in range(4)]
    micro = [sampler(rank, world, accumulate) for rank in range(world)]
    for rank in range(world):
        for number, batch in enumerate(micro[rank]):
            step, place = divmod(number, accumulate)
            assert batch == ranks[place * world + rank][step]


def test_what_is_dropped_differs_between_epochs():
    sampler = TrainSampler(13, 12, 0, 1, 7)
    dropped = set()
    for epoch in range(60):
        sampler.set_position(epoch)
        dropped |= set(range(13)) - {sample for _, sample in samples_of(sampler)}
    assert dropped == set(range(13))


def test_order_follows_from_seed_and_epoch():
    orders = {}
    for seed in (1, 2):
        sampler = TrainSampler(50, 5, 0, 1, seed)
        for epoch in (0, 1, PRECISE_BN_EPOCHS, PRECISE_BN_EPOCHS + 1):
            sampler.set_position(epoch)
            orders[seed, epoch] = [sample for _, sample in samples_of(sampler)]
            assert samples_of(sampler) == [(epoch, sample) for sample in orders[seed, epoch]]
            assert sorted(orders[seed, epoch]) == list(range(50))
    assert len({tuple(order) for order in orders.values()}) == 8
    assert orders[1, 0][:5] == [14, 39, 36, 48, 22]  # frozen: a resume under another NumPy goes on in the same order


@pytest.mark.parametrize("done", [0, 12, 24, 36, 96, 5])
def test_a_resume_gives_exactly_the_tail(done):
    sampler = TrainSampler(101, 4, 1, 3, 3)
    sampler.set_position(2)
    whole = list(sampler)
    sampler.set_position(2, done)
    assert len(sampler) == len(list(sampler)) == (101 - done) // 12
    if done % 12 == 0:
        assert list(sampler) == whole[done // 12:]
    else:  # resumed on another number of processes: no sample twice, none left out
        single = TrainSampler(101, 1, 0, 1, 3)
        single.set_position(2, done)
        order = samples_of(single)
        assert list(sampler)[0] == order[4:8] and list(sampler)[-1] == order[12 * 7 + 4:12 * 7 + 8]


def test_a_number_of_steps():
    sampler = TrainSampler(100, 10, 0, 1, 3)
    whole = list(sampler)
    sampler.set_position(0, 20, 3)
    assert len(sampler) == 3 and list(sampler) == whole[2:5]
    sampler.set_position(0, 90, 3)
    assert len(sampler) == 1 and list(sampler) == whole[9:]


def test_a_short_epoch():
    sampler = TrainSampler(100, 10, 0, 1, 3, epoch_samples=25)
    assert sampler.steps_per_epoch == 2
    seen = set()
    for epoch in range(40):
        sampler.set_position(epoch)
        assert len(samples_of(sampler)) == 20
        seen |= {sample for _, sample in samples_of(sampler)}
    assert len(seen) > 95


def test_an_epoch_without_a_step_is_refused():
    with pytest.raises(ValueError, match="takes 32 samples .--batch-size 16 on 2 processes., an epoch has 31"):
        TrainSampler(31, 16, 0, 2, 0)
    with pytest.raises(ValueError, match="on 2 processes, 2 times.*lower --batch-size or --accumulate"):
        TrainSampler(31, 8, 0, 2, 0, accumulate=2)
    with pytest.raises(ValueError, match="--batch-size must be at least 1, not 0"):
        TrainSampler(31, 0, 0, 2, 0)
    with pytest.raises(ValueError, match="--eval-batch-size must be at least 1, not 0"):
        eval_loader(evaluation(), 0, 1, 0, 0, False)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("num", [0, 1, 2, 7, 8, 9, 101])
def test_evaluation_shards_are_exact(world, num):
    shards = [list(eval_indices(num, rank, world)) for rank in range(world)]
    assert sorted(index for shard in shards for index in shard) == list(range(num))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.fixture(scope="module")
def expected():
    """Three epochs, without workers, on one rank, in batches of 12: each epoch's two global batches."""
    sampler = TrainSampler(26, 12, 0, 1, 5)
    loader = train_loader(training(), sampler, 0, False)
    epochs = []
    for epoch in range(3):
        sampler.set_position(epoch)
        epochs.append(list(loader))
    return epochs


def test_epochs_differ(expected):
    assert [batch.clip.shape for batch in expected[0]] == [(12, 4, 16, 16, 3)] * 2
    assert not equal(tensors(expected[0]), tensors(expected[1]))
    keys = torch.cat([tensors(epoch)[5] for epoch in expected])
    assert len(set(keys.tolist())) == 72


@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_change_nothing(workers, expected):
    sampler = TrainSampler(26, 12, 0, 1, 5)
    loader = train_loader(training(), sampler, workers, False)
    for epoch in (0, 1, 2):
        sampler.set_position(epoch)
        assert len(loader) == 2
        assert equal(tensors(loader), tensors(expected[epoch]))
    sampler.set_position(1, 12)
    assert equal(tensors(loader), tensors(expected[1][1:]))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 5 worker processes")
@pytest.mark.parametrize("world, workers", [(2, 0), (2, 5), (3, 2)])
def test_ranks_change_nothing(world, workers, expected):
    parts = [list(train_loader(training(), TrainSampler(26, 12 // world, rank, world, 5), workers, False))
             for rank in range(world)]
    assert equal(tensors([part for step in zip(*parts) for part in step]), tensors(expected[0]))


@pytest.mark.parametrize("world, workers", [(1, 0), (3, 2)])
def test_evaluation_gives_every_video_once(world, workers):
    found = {}
    for rank in range(world):
        loader = eval_loader(evaluation(), rank, world, 3, workers, False)
        batches = list(loader)
        assert len(loader) == len(batches) and [len(b.label) for b in list(loader)] == [len(b.label) for b in batches]
        for batch in batches:
            assert not batch.augmented
            for row, label, clip in zip(batch.index.tolist(), batch.label.tolist(), batch.clip):
                assert row == label and row not in found
                found[row] = clip
    assert sorted(found) == list(range(10))
    assert torch.equal(found[0], found[6]) and not torch.equal(found[0], found[1])


@pytest.mark.parametrize("world, workers", [(1, 0), (3, 2), (12, 0)])
def test_all_clips_and_windows_of_a_video_are_on_one_rank(world, workers):
    clips = evaluation().with_clips(3)
    clips.transform = EvalTransform(16, 20, crops=2)
    found = []
    for rank in range(world):
        loader = eval_loader(clips, rank, world, 4, workers, False)
        batches = list(loader)
        loader.close()
        assert len(loader) == len(batches) and all(batch.clip.shape[1:] == (8, 16, 16, 3) for batch in batches)
        rows = [row for batch in batches for row in batch.index.tolist()]
        assert rows == [row for row in range(rank, 10, world) for _ in range(3)]
        found += [(row, clip) for batch in batches for row, clip in zip(batch.index.tolist(), batch.clip)]
    found.sort(key=lambda pair: pair[0])
    for sample, (row, clip) in enumerate(found):
        assert row == sample // 3 and np.array_equal(clip.numpy(), clips[(0, sample)].clip)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at processes through /proc")
def test_memory_and_open_files_stay_as_they_are():
    sampler = TrainSampler(26, 2, 0, 1, 5)
    loader, looks = train_loader(training(), sampler, 2, False), []
    for epoch in range(8):
        sampler.set_position(epoch)
        for _ in loader:
            pass
        looks.append(resources())
    loader.close()
    assert max(files for _, files in looks[2:]) <= looks[2][1] + 2  # workers that start anew differ by a pipe
    assert max(resident for resident, _ in looks[2:]) < looks[2][0] + 8  # MiB


def test_a_pass_that_was_given_up_leaves_no_process_and_nothing_for_the_garbage_collector():
    before = set(multiprocessing.active_children())
    loader = train_loader(training(), TrainSampler(26, 2, 0, 1, 5), 2, False)
    batches = iter(loader)
    next(batches)
    kept = [batches]
    kept.append(kept)  # as the traceback of an error keeps it
    assert len(set(multiprocessing.active_children()) - before) == 2
    loader.close()
    assert set(multiprocessing.active_children()) == before
    del batches, kept
    gc.collect()
    assert len(list(loader)) == len(loader)  # a closed loader starts anew
    loader.close()
    assert set(multiprocessing.active_children()) == before


def test_an_empty_shard():
    assert list(eval_loader(evaluation(2), 2, 3, 4, 0, False)) == []


def test_global_generators_are_left_alone():
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(train_loader(training(12), TrainSampler(12, 4, 0, 1, 5), 0, False))
    list(train_loader(training(12), TrainSampler(12, 4, 0, 1, 5), 1, False))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]


def test_failures_come_through_a_worker(tmp_path):
    (tmp_path / "ok.avi").write_bytes((FILMS / NAMES[0]).read_bytes())
    (tmp_path / "bad.avi").write_bytes(b"")
    rows = VideoList(str(tmp_path), ["bad.avi", "ok.avi", "ok.avi", "bad.avi"], [0, 1, 2, 3])
    dataset = ClipDataset(rows, 4, 5, TrainAugmentation(16, (16, 24)), 5, training=True)
    batch, = train_loader(dataset, TrainSampler(4, 4, 0, 1, 5), 1, False)
    assert isinstance(batch, ClipBatch) and batch.augmented is True
    assert sorted(batch.label.tolist()) == [1, 1, 1, 2]
    assert [path for path, _ in batch.failures] == [str(tmp_path / "bad.avi")] * 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_batches_keep_their_type():
    for workers in (0, 1):
        batch = next(iter(train_loader(training(12), TrainSampler(12, 4, 0, 1, 5), workers, True)))
        assert isinstance(batch, ClipBatch) and batch.augmented is True and not batch.failures
        assert all(field.is_pinned() for field in batch if torch.is_tensor(field))


def test_a_reader_that_died_is_named_with_what_to_do():
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. \nmore")
    assert "(pid 7) is killed" in why_readers_died(killed) and "--workers" in why_readers_died(killed)
    assert why_readers_died(RuntimeError("shapes differ")) == why_readers_died(OSError("DataLoader worker")) == ""


def test_no_room_in_shared_memory_is_named(monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", refuse)
    with pytest.raises(OSError, match=r"No space left on device.*/dev/shm.*--workers 0"):
        iter(eval_loader(evaluation(), 0, 1, 4, 0, False))
