"""The three streams of a run, and the end of their processes."""
import multiprocessing

import pytest
import torch
from features import KEEPS_WORKERS
from film_numbers import FILMS, FRAMES
from packed_films import make_store

from data.packed_index import read_index
from data.packed_store import PackedVideos
from data.sample_order import SampleOrder
from data.streams import ClipGeometry, ClipStreams, Share
from data.video_list import VideoList

GEOMETRY = ClipGeometry(4, 5, 3, 16, (16, 24), 20)
NAMES = sorted(FRAMES)


def streams(rank=0, world=1, workers=0, accumulate=1, **options):
    videos = VideoList(str(FILMS), [NAMES[row % 6] for row in range(11)], range(11))
    share = Share(rank, world, 4 // world // accumulate, 3, workers, False, accumulate)
    return ClipStreams(videos, videos, GEOMETRY, share, 5, **options)


def test_training_goes_on_at_a_position_and_statistics_have_draws_of_their_own():
    run = streams()
    assert (run.steps_per_epoch, run.evaluation_steps) == (2, 4)
    whole = list(run.training(0, 0, 2))
    rest = list(run.training(0, 4, 1))
    assert len(whole) == 2 and len(rest) == 1 and torch.equal(whole[1].clip, rest[0].clip)
    statistics = list(run.statistics(0, 2))
    assert len(statistics) == 2 and not torch.equal(whole[0].index, statistics[0].index)
    assert whole[0].augmented and statistics[0].augmented


def test_a_step_takes_several_batches():
    run, whole = streams(accumulate=2), list(streams().training(0, 4, 1))
    assert (run.steps_per_epoch, run.global_batch) == (2, 4)
    parts = list(run.training(0, 4, 1))
    assert len(parts) == 2 and torch.equal(torch.cat([part.clip for part in parts]), whole[0].clip)
    assert len(list(run.statistics(0, 2))) == 4


def test_evaluation_is_each_video_once_over_the_ranks():
    batches = [batch for rank in range(3) for batch in streams(rank, 3).evaluation()]
    assert sorted(torch.cat([batch.index for batch in batches]).tolist()) == list(range(11))
    assert not any(batch.augmented for batch in batches)


def test_a_short_epoch():
    assert streams(epoch_div_factor=2).steps_per_epoch == 1


def test_a_window_wants_rows_that_lie_in_shards(tmp_path):
    with pytest.raises(ValueError, match="--shuffle-window 8: only a packed store"):
        streams(shuffle_window=8)
    make_store(tmp_path / "store")
    index = read_index(str(tmp_path / "store"))
    train, test = (PackedVideos(str(tmp_path / "store"), index, 1, part) for part in (0, 1))
    run = ClipStreams(train, test, GEOMETRY, Share(0, 1, 2, 2, 0, False), 5, shuffle_window=1)
    order = [row for batch in run.training(0, 0, 2) for row in batch.index.tolist()]
    read = SampleOrder(5, 5, train.stretches(), 1)(0).tolist()[:4]
    assert [row for row in read if row != 2] == [row for row, asked in zip(order, read) if asked != 2]


def test_closing_ends_the_workers():
    others = set(multiprocessing.active_children())
    run = streams(workers=2)
    list(run.training(0, 0, 1))
    list(run.evaluation())
    assert len(set(multiprocessing.active_children()) - others) >= (4 if KEEPS_WORKERS else 0)
    run.close()
    assert not [child for child in set(multiprocessing.active_children()) - others if child.is_alive()]
