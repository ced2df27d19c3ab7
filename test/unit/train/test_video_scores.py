"""Scores of videos: means over clips and windows, gathered exactly from processes whose shares differ."""
from collections import namedtuple

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from train import distributed
from train.distributed import Ranks
from train.video_scores import VideoScores, gather_rows, gather_texts

CPU = torch.device("cpu")
Batch = namedtuple("Batch", "index readable failures")
VIDEOS, CLASSES, CLIPS, WINDOWS = 7, 6, 2, 3


def logits_of(video, clip):
    """(V, K)"""
    return torch.from_numpy(np.random.RandomState(100 * video + clip).normal(size=(WINDOWS, CLASSES))).float()


def collected(ranks, broken=()):
    """The table, from batches of three clips."""
    scores = VideoScores(VIDEOS, CLASSES, CLIPS * WINDOWS, ranks)
    samples = [(video, clip) for video in range(ranks.rank, VIDEOS, ranks.world_size) for clip in range(CLIPS)]
    for start in range(0, len(samples), 3):
        part = samples[start:start + 3]
        failures = [("film", "clip %d of %d" % (clip, video)) for video, clip in part if (video, clip) in broken]
        scores.add(Batch(torch.tensor([video for video, _ in part]),
                         torch.tensor([sample not in broken for sample in part]), failures),
                   torch.stack([logits_of(*sample) for sample in part]))
    return scores.table(CPU)


def test_a_videos_score_is_the_mean_of_its_probabilities():
    table = collected(Ranks())
    for video in range(VIDEOS):
        powers = np.exp(np.concatenate([logits_of(video, clip).double().numpy() for clip in range(CLIPS)]))
        mean = (powers / powers.sum(1, keepdims=True)).mean(0)
        assert table.scores[video].numpy() == pytest.approx(mean, abs=1e-7)
        assert table.best[video].tolist() == np.argsort(-mean)[:5].tolist()
    assert table.readable.all() and table.reasons == [""] * VIDEOS


def test_a_video_of_which_a_clip_cannot_be_read_has_no_score():
    table = collected(Ranks(), broken={(3, 1), (5, 0), (5, 1)})
    assert table.readable.tolist() == [True, True, True, False, True, False, True]
    assert not table.scores[[3, 5]].abs().max() and table.scores[4].sum().item() == pytest.approx(1)
    assert table.reasons[3:6] == ["clip 1 of 3", "", "clip 0 of 5"]


def test_one_view_keeps_the_order_of_the_logits_ties_included():
    logits = torch.tensor([[[0.5, 2.0, 2.0, -1.0, 2.0, 0.5]]]).repeat(VIDEOS, 1, 1)
    scores = VideoScores(VIDEOS, CLASSES, 1, Ranks())
    scores.add(Batch(torch.arange(VIDEOS), torch.ones(VIDEOS, dtype=torch.bool), ()), logits)
    assert torch.equal(scores.table(CPU).best, logits[:, 0].topk(5, dim=1)[1])


def test_outputs_that_are_no_numbers_are_an_error():
    scores = VideoScores(2, CLASSES, 1, Ranks())
    scores.add(Batch(torch.arange(2), torch.ones(2, dtype=torch.bool), ()), torch.full((2, 1, CLASSES), float("nan")))
    with pytest.raises(ValueError, match="no numbers for 2 of 2"):
        scores.table(CPU)


def _process(rank, world, path):
    torch.set_num_threads(1)
    distributed.start(Ranks(rank, rank, world), "gloo", "file://%s/meet" % path)
    torch.save(tuple(collected(Ranks(rank, rank, world), broken={(6, 0)})), "%s/%d.pth" % (path, rank))
    distributed.stop()


def test_processes_with_fewer_videos_than_others_or_none_give_the_same_bits(tmp_path):
    one = collected(Ranks(), broken={(6, 0)})
    mp.start_processes(_process, args=(3, str(tmp_path)), nprocs=3, start_method="fork")
    for rank in range(3):
        table = torch.load("%s/%d.pth" % (tmp_path, rank))
        assert all(torch.equal(mine, whole) for mine, whole in zip(table[:3], one[:3])) and table[3] == one.reasons


def test_a_process_without_videos_takes_part():
    scores = VideoScores(2, CLASSES, 1, Ranks(3, 3, 4))
    table = scores.table(CPU)  # alone in this test, so that nothing is added
    assert table.scores.shape == (2, CLASSES) and not table.readable.any() and table.reasons == ["", ""]


def test_rows_are_gathered_in_parts(monkeypatch):
    monkeypatch.setattr("train.video_scores.ROWS_AT_ONCE", 2)
    own = torch.arange(10).view(5, 2)
    assert torch.equal(gather_rows(own, 5, Ranks(), CPU), own)
    assert gather_texts(["", "später"], 2, Ranks(), CPU) == ["", "später"] and gather_texts([], 0, Ranks(), CPU) == []
