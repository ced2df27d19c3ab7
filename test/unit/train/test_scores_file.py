"""scores.npz as training leaves it: the probabilities of the newest evaluation, whatever the order of its batches."""
import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from train.distributed import read_ranks
from train.log import LOGGER
from train.scores_file import ScoresFile

CPU = torch.device("cpu")
VIDEOS = SimpleNamespace(labels=np.array([2, 0, 1], np.int32), relative="up/v{}.avi".format)


class Videos(SimpleNamespace):
    def __len__(self):
        return 3


def scores_file(path):
    return ScoresFile(path, Videos(**vars(VIDEOS)), ["a", "b", "ü"], read_ranks(False))


def batch(rows, readable=None):
    readable = torch.tensor([True] * len(rows) if readable is None else readable)
    return SimpleNamespace(index=torch.tensor(rows), readable=readable,
                           failures=[("v", "broken") for fine in readable.tolist() if not fine])


@pytest.fixture
def warnings(caplog):
    LOGGER.propagate, before = True, LOGGER.propagate
    with caplog.at_level(logging.WARNING):
        yield caplog
    LOGGER.propagate = before


def test_the_newest_evaluation_is_written_in_the_order_of_the_list(tmp_path):
    path = tmp_path / "scores.npz"
    kept = scores_file(path)
    kept.add(batch([0]), torch.zeros(1, 1, 3))  # of an evaluation that was broken off
    kept.begin()
    kept.add(batch([2, 0], [True, False]), torch.tensor([[[0.0, 0.0, 0.0]], [[5.0, 0.0, 0.0]]]))
    kept.add(batch([1]), torch.tensor([[[0.0, float(np.log(2.0)), 0.0]]]))
    kept.write(CPU)
    with np.load(str(path), allow_pickle=False) as file:
        assert file["path"].tolist() == ["up/v0.avi", "up/v1.avi", "up/v2.avi"]
        assert file["label"].tolist() == [2, 0, 1] and file["class_names"].tolist() == ["a", "b", "ü"]
        assert file["readable"].tolist() == [False, True, True] and file["scores"].dtype == np.float32
        assert np.allclose(file["scores"], [[0, 0, 0], [0.25, 0.5, 0.25], [1 / 3] * 3], atol=1e-7)
    assert [p.name for p in tmp_path.iterdir()] == ["scores.npz"]


def test_scores_that_are_no_numbers_leave_the_file_as_it_was_and_the_run_alive(tmp_path, warnings):
    path = tmp_path / "scores.npz"
    path.write_bytes(b"before")
    kept = scores_file(path)
    kept.add(batch([0, 1, 2]), torch.full((3, 1, 3), float("nan")))
    kept.write(CPU)
    assert path.read_bytes() == b"before" and "scores.npz is not written" in warnings.text


def test_a_disk_that_cannot_be_written_does_not_stop_the_run(tmp_path, warnings):
    (tmp_path / "no folder").write_bytes(b"")
    kept = scores_file(tmp_path / "no folder" / "scores.npz")
    kept.add(batch([0, 1, 2]), torch.zeros(3, 1, 3))
    kept.write(CPU)
    assert "scores.npz is not written" in warnings.text
