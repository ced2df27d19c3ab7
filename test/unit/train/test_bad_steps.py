"""A step whose loss or gradient is no number changes nothing; too many in a row end the run and explain it."""

import json
import math

import pytest
import torch
import toy_run
from torch import nn

from data.loaders import TrainSampler
from train.amp import Precision, all_finite
from train.bad_steps import DUMP, BadSteps, NotFinite, statistics
from train.log import read_metrics
from train.loop import Trainer
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate

CPU = torch.device("cpu")
ROWS = [(0, sample) for sample in range(4)]


def _trainer(level="O0", scale=None):
    net, precision = toy_run.network().train(), Precision(level, torch.float32, CPU, scale)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    return Trainer(net, optimizer, LearningRate(0.1, 2), precision, lambda batch: batch.clip.clone(), 1)


def _everything(trainer):
    momenta = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    return [value.clone() for value in [*trainer.module.state_dict().values(), *momenta]]


def _batch(value=0.0):
    batch = toy_run.clips(ROWS)
    batch.clip[1, 0, 0, 0, 0] += value
    return batch


@pytest.mark.parametrize("level, scale", [("O0", None), ("O2", 128.0)])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_bad_step_changes_nothing_and_the_next_one_is_as_if_it_had_not_been(value, level, scale):
    trainer, other = _trainer(level, scale), _trainer(level, scale)
    for one in (trainer, other):
        assert one.step(_batch(), 1)
    before = _everything(trainer)
    assert not trainer.step(_batch(value), 2)
    assert all(torch.equal(a, b) for a, b in zip(_everything(trainer), before))
    assert (trainer.precision.scaler.skipped, other.precision.scaler.skipped) == (1, 0)
    for one in (trainer, other):
        assert one.step(_batch(), 3)
    assert all(torch.equal(a, b) for a, b in zip(_everything(trainer), _everything(other)))


def test_an_infinite_loss_whose_gradients_are_numbers_is_left_out():
    trainer = _trainer()
    trainer.model = nn.Sequential(trainer.module, nn.Hardtanh(), _Log())
    before = trainer.module.state_dict()["5.weight"].clone()
    assert not trainer.step(_batch(), 1)
    assert torch.equal(trainer.module.state_dict()["5.weight"], before)


class _Log(nn.Module):
    """Makes the label's logit minus infinity, which no gradient passes."""

    def forward(self, logits):
        return torch.cat([torch.full_like(logits[:, :1], -math.inf), logits[:, 1:]], 1)


def test_numbers_add_up_in_every_type():
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert all_finite([torch.full((70000,), 1000.0).to(dtype), torch.zeros(3, dtype=dtype)])
        for value in (math.nan, math.inf, -math.inf):
            assert not all_finite([torch.zeros(3, dtype=dtype), torch.tensor([1.0, value]).to(dtype)])
    assert not all_finite([torch.tensor([math.inf, -math.inf])])


def test_statistics_are_those_of_the_numbers_there_are():
    assert statistics(torch.tensor([1.0, -3.0, math.nan, math.inf])).tolist() == [0.5, -3.0, 1.0, 2.0]
    assert statistics(torch.tensor([math.nan])).tolist() == [0.0, 0.0, 0.0, 0.0]
    assert statistics(torch.tensor([2, 4])).tolist() == [1.0, 2.0, 4.0, 3.0]


def test_a_run_goes_on_over_bad_steps_and_says_so(tmp_path):
    job = toy_run.run(tmp_path, spoilt=(5,), end_epoch=1, log_samples=False, precise_bn=False)
    rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "train"]
    assert job.trainer.precision.scaler.skipped == 1 and job.bad_steps.in_a_row == 0
    assert rows[-1]["skipped"] == 1 and rows[-1]["loss"] is None
    assert json.loads((tmp_path / "result.json").read_text())["skipped_steps"] == 1


def test_too_many_end_it_with_what_explains_them(tmp_path):
    with pytest.raises(NotFinite, match="3 steps in a row, up to step 3.*%s" % DUMP):
        toy_run.run(tmp_path, spoilt=range(toy_run.TRAIN), log_samples=False)
    dump = json.loads((tmp_path / DUMP).read_text())
    sampler = TrainSampler(toy_run.TRAIN, 4, 0, 1, 1)
    rows = [sample for _, sample in list(sampler)[2]]
    assert (dump["step"], dump["in_a_row"], dump["rows"]) == (3, 3, rows)
    assert dump["videos"] == ["video%d" % row for row in rows]
    shares = {name: row["finite"] for name, row in dump["activations"].items()}
    assert list(shares) == ["0", "1", "2", "3", "4", "5", "network"] and shares["0"] == 0.0
    assert dump["gradients"]["5.weight"]["finite"] == 0.0
    assert dump["weights"]["5.weight"]["finite"] == 1.0 and dump["weights"]["5.weight"]["largest"] > 0


def test_only_those_in_a_row_count(tmp_path):
    steps = BadSteps(_trainer(), 2, tmp_path, str, True)
    for applied in (False, True, False, True):
        steps.note(applied, 1, [torch.tensor([1])], _batch())
    assert steps.in_a_row == 0 and not (tmp_path / DUMP).exists()
