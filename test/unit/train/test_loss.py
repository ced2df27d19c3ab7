"""Cross-entropy with labels and with shares, by numbers of its own."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from train.loss import cross_entropy, labels_of

LOGITS = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.25, 3.0]])


def _by_hand(shares):
    rows = LOGITS.double().numpy()
    log_p = rows - np.log(np.exp(rows).sum(1, keepdims=True))
    return -(np.array(shares) * log_p).sum(1)


def test_shares_by_hand():
    shares = [[0.7, 0.3, 0.0], [0.1, 0.1, 0.8]]
    losses = cross_entropy(LOGITS, torch.tensor(shares), "none")
    assert losses.tolist() == pytest.approx(_by_hand(shares).tolist(), rel=1e-6)
    assert cross_entropy(LOGITS, torch.tensor(shares)).item() == pytest.approx(_by_hand(shares).mean(), rel=1e-6)


def test_a_mix_of_two_labels_is_the_mix_of_their_losses():
    mixed = cross_entropy(LOGITS, torch.tensor([[0.6, 0.4, 0.0]] * 2), "none")
    first, second = (cross_entropy(LOGITS, torch.tensor([k, k]), "none") for k in (0, 1))
    assert torch.allclose(mixed, 0.6 * first + 0.4 * second)


def test_labels_give_torchs_own_loss_to_the_bit():
    labels = torch.tensor([1, 2])
    for reduction in ("mean", "none"):
        assert torch.equal(cross_entropy(LOGITS, labels, reduction),
                           functional.cross_entropy(LOGITS, labels, reduction=reduction))


def test_a_certain_wrong_answer_stays_finite_with_shares():
    loss = cross_entropy(torch.tensor([[200.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    assert loss.item() == pytest.approx(100.0) and math.isfinite(loss.item())


def test_answers_are_counted_against_the_largest_share():
    assert labels_of(torch.tensor([2, 0])).tolist() == [2, 0]
    assert labels_of(torch.tensor([[0.1, 0.2, 0.7], [0.55, 0.45, 0.0]])).tolist() == [2, 0]
