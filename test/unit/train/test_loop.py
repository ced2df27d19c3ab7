"""One step: by default the plain recipe to the bit; a mix where one is handed in, and only there."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from data.batch_mix import BatchMix, MixOptions
from train.amp import Precision
from train.loop import Trainer, dropout_seed
from train.optim import build_sgd, parameter_groups
from train.run import Run
from train.schedule import LearningRate

CPU = torch.device("cpu")
STEPS, CLASSES = 4, 5


class _Batch(NamedTuple):
    clip: torch.Tensor
    label: torch.Tensor
    readable: Any = None
    failures: Any = ()


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2),
                         nn.Linear(4 * 2 * 36, CLASSES)).train()


def _batches():
    torch.manual_seed(5)
    return [_Batch(torch.randn(4, 3, 2, 6, 6), torch.randint(0, CLASSES, (4,))) for _ in range(STEPS)]


def _trainer(*mix):
    net, precision = _net(), Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    return Trainer(net, optimizer, LearningRate(0.1, 2), precision, lambda batch: batch.clip.clone(), 1, 0, *mix)


def _losses(trainer):
    losses = []
    for number, batch in enumerate(_batches(), 1):
        trainer.step(batch, number)
        losses.append(trainer.metrics.compute().loss)
        trainer.metrics.reset()
    return losses


def _plain():
    """The recipe written out: losses and weights."""
    net, rate, losses = _net(), LearningRate(0.1, 2), []
    optimizer = build_sgd(parameter_groups(net.named_parameters(), 1e-2, False), 0.1)
    for number, batch in enumerate(_batches(), 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        torch.manual_seed(dropout_seed(1, number, 0))
        logits = net(batch.clip)
        optimizer.zero_grad()
        functional.cross_entropy(logits, batch.label).backward()
        optimizer.step()
        losses.append(functional.cross_entropy(logits.detach(), batch.label, reduction="none").double().mean().item())
    return losses, net.state_dict()


@pytest.mark.parametrize("mix", [(), (BatchMix(MixOptions(), CLASSES, 1),)], ids=["none", "off"])
def test_without_mixing_losses_and_weights_are_the_plain_recipes_to_the_bit(mix):
    trainer, (losses, state) = _trainer(*mix), _plain()
    found = _losses(trainer)
    assert found == pytest.approx(losses, rel=1e-7, abs=0)
    assert all(torch.equal(value, state[name]) for name, value in trainer.module.state_dict().items())


@pytest.mark.parametrize("option", [{"mixup": 0.8}, {"cutmix": 1.0}, {"random_erasing": 1.0}, {"label_smoothing": 0.1}])
def test_each_option_changes_the_training_and_repeats(option):
    mix = BatchMix(MixOptions(**option), CLASSES, 1)
    found = _losses(_trainer(mix))
    assert found == _losses(_trainer(mix)) and found != _losses(_trainer())


def test_the_loss_is_that_of_the_shares_and_hits_name_the_largest():
    shares = torch.tensor([[0.1, 0.9, 0, 0, 0], [0.6, 0, 0.4, 0, 0], [0, 0, 0, 0, 1.0], [0, 0, 0, 0.7, 0.3]])
    trainer = _trainer(lambda clip, label, number: (clip, shares))
    net, batch = _net(), _batches()[0]
    torch.manual_seed(dropout_seed(1, 1, 0))
    log_p = functional.log_softmax(net(batch.clip).double(), 1)
    trainer.step(batch, 1)
    scores = trainer.metrics.compute()
    assert scores.loss == pytest.approx(-(shares.double() * log_p).sum().item() / 4, rel=1e-5)
    assert scores.top1 == (log_p.argmax(1) == torch.tensor([1, 0, 4, 3])).double().mean().item()


def test_precise_bn_and_evaluation_do_not_mix():
    def refuse(clip, label, number):
        raise AssertionError("mixed")

    trainer = _trainer(refuse)
    trainer.refine_batchnorm(_batches(), lambda failures: None)
    assert trainer.module[1].running_mean.abs().sum() > 0
    data = SimpleNamespace(evaluation=_batches, evaluation_steps=STEPS)
    run = Run(trainer, None, data, SimpleNamespace(shows_progress=False), None, lambda failures: None)
    assert run.evaluate().total == 4 * STEPS
    with pytest.raises(AssertionError, match="mixed"):
        trainer.step(_batches()[0], 1)
