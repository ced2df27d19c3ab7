"""What an evaluation says beside its scores. The scores themselves: test_ranks.py, test_metrics.py."""
import logging
import math

import pytest
import toy_run
from torch import nn

from train.amp import Precision
from train.evaluate import evaluate


@pytest.mark.parametrize("bias, told", [(0.0, False), (3e6, True), (math.inf, True)])
def test_a_loss_that_is_no_number_is_explained(monkeypatch, caplog, bias, told):
    monkeypatch.setattr(logging.getLogger("glore"), "propagate", True)
    caplog.set_level(logging.INFO, "glore")
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 2 * 4 * 4, toy_run.CLASSES))
    model[1].bias.data[0] = bias
    batches = toy_run.ToyData(toy_run.CONFIG, 0, 1).evaluation()
    scores = evaluate(model, batches, lambda batch: batch.clip, Precision("O0", toy_run.torch.float32, toy_run.CPU))
    assert scores.total == toy_run.TEST and math.isnan(scores.loss) == told
    assert ("the learning rate may be too high" in caplog.text) == told
