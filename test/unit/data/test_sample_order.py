"""Orders of an epoch: permutations that follow from (seed, epoch); with a window, read as the rows lie on disk."""
import numpy as np
import pytest

from data.loaders import PRECISE_BN_EPOCHS, TrainSampler
from data.randomness import epoch_order, random_state
from data.sample_order import SampleOrder, Stretches

SHARDS = (30, 1, 25, 45)
ROWS = np.random.RandomState(0).permutation(101)
STRETCHES = Stretches(ROWS, np.cumsum(SHARDS))
PLACE = np.argsort(ROWS)  # row -> place on disk
SHARD_OF = np.repeat(np.arange(4), SHARDS)[PLACE]
FROZEN = (91, 68, 60, 80, 27, 18)


def ordered(seed=3, window=8):
    return SampleOrder(seed, 101, STRETCHES, window)


@pytest.mark.parametrize("window", [0, 1, 2, 8, 100, 101, 5000])
def test_each_sample_once_an_epoch(window):
    for epoch in (0, 1, PRECISE_BN_EPOCHS):
        assert sorted(ordered(window=window)(epoch).tolist()) == list(range(101))


def test_without_a_window_all_are_mixed():
    assert np.array_equal(SampleOrder(3, 101)(4), epoch_order(3, 4, 101))
    assert np.array_equal(ordered(window=0)(4), epoch_order(3, 4, 101))


def test_a_window_of_one_reads_each_shard_from_start_to_end():
    orders = set()
    for epoch in range(30):
        order = ordered(window=1)(epoch)
        shards = SHARD_OF[order]
        changes = np.flatnonzero(np.diff(shards)) + 1
        assert len(changes) == 3  # four stretches: each shard is left once
        assert all((np.diff(part) == 1).all() for part in np.split(PLACE[order], changes))
        orders.add(tuple(dict.fromkeys(shards.tolist())))
    assert len(orders) > 10


def test_mixing_stays_within_the_window():
    for epoch in range(5):
        read = ordered(window=1)(epoch)  # the same order of the shards
        mixed = ordered(window=8)(epoch)
        for start in range(0, 101, 8):
            assert sorted(read[start:start + 8]) == sorted(mixed[start:start + 8])
        assert not np.array_equal(read, mixed)


def test_it_follows_from_seed_and_epoch():
    orders = [tuple(ordered(seed)(epoch)) for seed in (1, 2) for epoch in (0, 1, PRECISE_BN_EPOCHS)]
    assert len(set(orders)) == 6 and orders[0] == tuple(ordered(1)(0))
    assert orders[0][:6] == FROZEN  # a resume under another NumPy goes on in the same order


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_same_global_batches(world):
    parts = [list(TrainSampler(101, 12 // world, rank, world, 3, order=ordered())) for rank in range(world)]
    flat = [sample for step in zip(*parts) for part in step for _, sample in part]
    assert flat == ordered()(0)[:96].tolist()


@pytest.mark.parametrize("done", [0, 12, 48])
def test_a_resume_gives_exactly_the_tail(done):
    sampler = TrainSampler(101, 6, 1, 2, 3, order=ordered())
    sampler.set_position(2)
    whole = list(sampler)
    sampler.set_position(2, done)
    assert list(sampler) == whole[done // 12:]


def test_videos_in_files_of_their_own_have_no_such_order():
    with pytest.raises(ValueError, match="--shuffle-window 5: only a packed store"):
        SampleOrder(0, 10, None, 5)


def test_the_order_is_numpys_permutation_in_half_its_room():
    order = epoch_order(3, 4, 1001)
    assert order.dtype == np.int32 and np.array_equal(order, random_state(3, 4, 0, "order").permutation(1001))


@pytest.mark.parametrize("window, at_once", [(8, 5), (8, 24), (3, 50), (200, 50)])
def test_mixing_by_blocks_gives_the_same(monkeypatch, window, at_once):
    whole = ordered(window=window)(1)
    monkeypatch.setattr("data.sample_order.ROWS_AT_ONCE", at_once)
    assert np.array_equal(ordered(window=window)(1), whole) and whole.dtype == np.int32
