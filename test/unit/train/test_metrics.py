"""Counts against the reference's, weights by sample, unreadable videos as errors."""

import json
import math
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
    assert a.compute(lambda tensor: tensor + b._sums).top1 == 0.75


def test_the_loss_is_the_same_in_any_order_and_over_any_number_of_processes():
    generator = torch.Generator().manual_seed(0)
    logits, labels = 30 * torch.randn(101, 7, generator=generator), torch.arange(101) % 7
    losses = []
    for parts in ([slice(0, 101)], [slice(50, 101), slice(0, 50)], [slice(n, n + 1) for n in range(100, -1, -1)]):
        metrics = ClassificationMetrics(CPU)
        for part in parts:
            metrics.update(logits[part], labels[part])
        losses.append(metrics.compute().loss)
    assert losses[0] == losses[1] == losses[2]
    exact = -logits.double().log_softmax(1)[torch.arange(101), labels].mean()
    assert losses[0] == pytest.approx(float(exact), rel=1e-6)


@pytest.mark.parametrize("worst", [float("inf"), float("nan"), 1e7])
def test_a_loss_that_is_no_number_makes_the_mean_none(worst):
    metrics = ClassificationMetrics(CPU)
    metrics.update(torch.tensor([[0.0, 1.0], [worst, 0.0]]), torch.tensor([0, 1]))
    assert math.isnan(metrics.compute().loss)
    metrics.reset()
    metrics.update(torch.tensor([[0.0, 1.0], [worst, 0.0]]), torch.tensor([0, 1]), torch.tensor([True, False]))
    assert metrics.compute().loss == pytest.approx(math.log(1 + math.e), rel=1e-6)
