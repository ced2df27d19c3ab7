"""Counts against the reference's, weights by sample, unreadable videos as errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from train.metrics import ClassificationMetrics

GOLDEN = Path(__file__).parents[1] / "golden"
CPU = torch.device("cpu")


def _batches():
    stored = np.load(str(GOLDEN / "g_metrics.npz"))
    return [(torch.from_numpy(stored["pred%d" % i]), torch.from_numpy(stored["label%d" % i])) for i in range(3)]


def test_top1_and_top5_equal_the_references_after_each_batch():
    rows = json.loads((GOLDEN / "g_metrics.json").read_text())
    metrics = ClassificationMetrics(CPU)
    for (logits, labels), (_, values) in zip(_batches(), rows[1:4]):
        metrics.update(logits, labels)
        scores = metrics.compute()
        assert scores.top1 == pytest.approx(values[1][0][1], abs=1e-12)
        assert scores.top5 == pytest.approx(values[2][0][1], abs=1e-12)


def test_the_loss_weighs_samples_not_batches():
    metrics, all_losses = ClassificationMetrics(CPU), []
    for logits, labels in _batches():
        metrics.update(logits, labels)
        shifted = logits.double() - logits.double().logsumexp(1, keepdim=True)
        all_losses.extend((-shifted[torch.arange(len(labels)), labels]).tolist())
    assert metrics.compute().loss == pytest.approx(sum(all_losses) / 12, rel=1e-6)


def test_an_unreadable_video_is_an_error_and_has_no_loss():
    metrics = ClassificationMetrics(CPU)
    logits, labels = torch.tensor([[9.0, 0, 0], [9.0, 0, 0], [0, 9.0, 0]]), torch.tensor([0, 0, 1])
    metrics.update(logits, labels, torch.tensor([True, False, True]))
    scores = metrics.compute()
    assert (scores.total, scores.unreadable) == (3, 1)
    assert scores.top1 == pytest.approx(2 / 3)
    assert scores.loss < 0.01


def test_fewer_than_five_classes_and_no_samples():
    metrics = ClassificationMetrics(CPU)
    assert metrics.compute().total == 0
    metrics.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]))
    assert (metrics.compute().top1, metrics.compute().top5) == (0.0, 1.0)


def test_processes_are_summed_before_anything_is_divided():
    a, b = ClassificationMetrics(CPU), ClassificationMetrics(CPU)
    a.update(torch.tensor([[1.0, 0]] * 3), torch.tensor([0, 0, 0]))
    b.update(torch.tensor([[1.0, 0]]), torch.tensor([1]))
    others = iter([b._loss, b._counts])
    assert a.compute(lambda tensor: tensor + next(others)).top1 == 0.75
