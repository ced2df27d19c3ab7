"""One step: by default the plain recipe to the bit; a mix where one is handed in, and only there; micro-batches."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from data.batch_mix import BatchMix, MixOptions
from train.amp import Precision
from train.loop import Slots, Trainer, by_step, dropout_seed
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
    return [_Batch(torch.randn(4, 3, 2, 6, 6), torch.randint(0, CLASSES, (4,)), torch.ones(4, dtype=torch.bool))
            for _ in range(STEPS)]


def _trainer(*mix):
    net, precision = _net(), Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    return Trainer(net, optimizer, LearningRate(0.1, 2), precision, lambda batch: batch.clip.clone(), 1, Slots(), *mix)


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
    trainer = _trainer(lambda clip, label, number, slot: (clip, shares))
    net, batch = _net(), _batches()[0]
    torch.manual_seed(dropout_seed(1, 1, 0))
    log_p = functional.log_softmax(net(batch.clip).double(), 1)
    trainer.step(batch, 1)
    scores = trainer.metrics.compute()
    assert scores.loss == pytest.approx(-(shares.double() * log_p).sum().item() / 4, rel=1e-5)
    assert scores.top1 == (log_p.argmax(1) == torch.tensor([1, 0, 4, 3])).double().mean().item()


def test_precise_bn_and_evaluation_do_not_mix():
    def refuse(clip, label, number, slot):
        raise AssertionError("mixed")

    trainer = _trainer(refuse)
    trainer.refine_batchnorm(_batches(), lambda failures: None)
    assert trainer.module[1].running_mean.abs().sum() > 0
    data = SimpleNamespace(evaluation=_batches, evaluation_steps=STEPS, common_evaluation_steps=STEPS)
    stop = SimpleNamespace(watch=lambda batches, steps: batches)
    run = Run(trainer, None, data, SimpleNamespace(shows_progress=False), None, lambda failures: None, stop, None)
    assert run.evaluate().total == 4 * STEPS
    with pytest.raises(AssertionError, match="mixed"):
        trainer.step(_batches()[0], 1)


def _exact_weights(slots, size):
    """Weights in double precision after some steps of 4 clips, `size` at a time, with BatchNorm's own statistics."""
    net = _net().double()
    net[1].eval()
    net[4].p = 0.0
    precision = Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    trainer = Trainer(net, optimizer, LearningRate(0.1, 2), precision, lambda batch: batch.clip.double(), 1, slots)
    for number, whole in enumerate(_batches(), 1):
        for micro in range(slots.accumulate):
            part = slice(micro * size, (micro + 1) * size)
            assert trainer.step(_Batch(whole.clip[part], whole.label[part]), number, micro)
    return trainer


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_step_as_the_large_batch_does(accumulate):
    whole, parts = _exact_weights(Slots(), 4), _exact_weights(Slots(0, 1, accumulate), 4 // accumulate)
    start = _net().double().state_dict()
    for name, value in whole.module.state_dict().items():
        found = parts.module.state_dict()[name]
        assert (found - value).abs().max() <= 1e-10 * value.abs().max(), name
        assert value.dim() < 2 or not torch.equal(value, start[name])
    assert parts.metrics.compute() == whole.metrics.compute()


def test_micro_batches_have_dropout_and_boxes_of_their_own_and_nothing_else_changes_between_them():
    seen = []
    trainer = _trainer(lambda clip, label, number, slot: seen.append((number, slot)) or (clip, label))
    trainer.slots = Slots(1, 3, 2)
    trainer.module[4].register_forward_hook(lambda module, inputs, output: seen.append((output == 0).flatten()))
    before = trainer.module[5].weight.clone()
    trainer.step(_batches()[0], 7, 0)
    assert torch.equal(trainer.module[5].weight, before)
    trainer.step(_batches()[0], 7, 1)
    assert [seen[0], seen[2]] == [(7, 1), (7, 4)] and not torch.equal(seen[1], seen[3])
    assert not torch.equal(trainer.module[5].weight, before)


def test_the_batches_of_a_step_are_taken_one_by_one():
    taken = []
    steps = by_step((taken.append(i) or i for i in range(4)), 2)
    first = next(steps)
    assert taken == [0] and next(first) == 0 and taken == [0] and next(first) == 1 and taken == [0, 1]
    assert list(first) == [] and [list(step) for step in steps] == [[2, 3]]
