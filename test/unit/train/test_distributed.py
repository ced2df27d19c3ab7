"""Who a process is, what it does alone, and what counts as having lost the others. Real groups: test_ranks.py."""

import copy
import datetime
import hashlib

import pytest
import torch
import torch.multiprocessing as mp
from features import assert_close
from torch import nn

from network.recomputation import set_recomputation
from network.resnet3d import GloReResNet3d, NetworkSpec, StageSpec
from network.weights import initialize
from train import distributed
from train.amp import Precision
from train.ema import AveragedWeights
from train.gradient_norm import GradientNorm
from train.launch import free_port
from train.loop import Slots, Trainer, dropout_seed
from train.optim import build_sgd, parameter_groups
from train.schedule import LearningRate
from train.whereabouts import Watch, Whereabouts

CPU = torch.device("cpu")
STAGES = (StageSpec("conv2", 1, 4, 8, (1, 1, 1), (1,)), StageSpec("conv3", 1, 8, 16, (2, 2, 2), (), (1,)),
          StageSpec("conv4", 1, 8, 16, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 16, (1, 2, 2), ()))


class _Batch:
    def __init__(self, clip, label):
        self.clip, self.label = clip, label


class _FixedNorm(nn.BatchNorm3d):
    """BatchNorm in evaluation mode: statistics of half a batch are not those of the whole."""

    def train(self, mode=True):
        return super().train(False)


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), _FixedNorm(6), nn.ReLU(), nn.Flatten(),
                         nn.Linear(6 * 2 * 16, 5))


def _train(net, rank, world, steps=4, accumulate=1):
    precision = Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    trainer = Trainer(distributed.wrap(net, CPU), optimizer, LearningRate(0.1, 2), precision, lambda b: b.clip, 1,
                      Slots(rank, world, accumulate))
    trainer.model.train()
    torch.manual_seed(5)
    clips, labels = torch.randn(steps, 4, 3, 2, 4, 4), torch.randint(0, 5, (steps, 4))
    size = 4 // world // accumulate
    for number, (clip, label) in enumerate(zip(clips, labels), 1):
        for micro in range(accumulate):
            first = trainer.slots.of(micro) * size
            trainer.step(_Batch(clip[first:first + size], label[first:first + size]), number, micro)
    return trainer


def _train_with_everything(rank, world, recompute):
    """The state of a small network and of its average after three steps with all that a step can do."""
    torch.manual_seed(0)
    net = GloReResNet3d(NetworkSpec("TINY", STAGES, "none.pth", "nothing"), 5)
    initialize(net)
    set_recomputation(net, recompute)
    precision = Precision("O0", torch.float32, CPU)
    optimizer = build_sgd(parameter_groups(precision.prepare(net), 1e-2, False), 0.1)
    ema, limit = AveragedWeights(precision, net, 0.9), GradientNorm(0.5, CPU)
    trainer = Trainer(distributed.wrap(net, CPU), optimizer, LearningRate(0.1, 2), precision, lambda b: b.clip, 1,
                      Slots(rank, world, 2), gradient_norm=limit, ema=ema)
    trainer.model.train()
    torch.manual_seed(rank)
    for number in (1, 2, 3):
        for micro in (0, 1):
            trainer.step(_Batch(torch.randn(2, 3, 4, 32, 32), torch.tensor([0, 4])), number, micro)
    assert limit.mean() > 0.5
    distributed.average_buffers(net)
    with ema.in_place():
        distributed.average_buffers(net)
    return {**net.state_dict(), **{"average " + name: value for name, value in ema.weights().items()}}


def _process(rank, world, path):
    distributed.start(distributed.Ranks(rank, rank, world), "gloo", "file://%s/meet" % path)
    torch.set_num_threads(1)
    trainer = _train(_net(), rank, world)
    micro = _train(_net(), rank, world, accumulate=2)
    scores = trainer.metrics.compute(distributed.all_reduce_sum)
    norm = nn.BatchNorm3d(2)
    norm.running_mean.fill_(float(rank))
    distributed.average_buffers(norm)
    distributed.barrier(CPU)
    whole, again = (_train_with_everything(rank, world, recompute) for recompute in (False, True))
    torch.save(
        {"whole": whole, "again": again, "state": trainer.module.state_dict(), "micro": micro.module.state_dict(),
         "loss": scores.loss, "count": scores.total, "mean": norm.running_mean},
        "%s/%d.pth" % (path, rank))
    distributed.stop()


def test_two_processes_train_to_the_parameters_of_one_with_twice_the_batch(tmp_path):
    one = _train(_net(), 0, 1)
    mp.spawn(_process, args=(2, str(tmp_path)), nprocs=2)
    results = [torch.load("%s/%d.pth" % (tmp_path, rank)) for rank in range(2)]
    start = _net().state_dict()
    for name, value in one.module.state_dict().items():
        assert torch.equal(results[0]["state"][name], results[1]["state"][name]), name
        assert_close(results[0]["state"][name], value, rtol=1e-5, atol=1e-6)
        assert torch.equal(results[0]["micro"][name], results[1]["micro"][name]), name
        assert_close(results[0]["micro"][name], value, rtol=1e-5, atol=1e-6)
    for name, value in results[0]["whole"].items():
        assert torch.equal(results[1]["whole"][name], value), name
        assert torch.equal(results[0]["again"][name], value), name
    assert not torch.allclose(start["0.weight"], one.module.state_dict()["0.weight"])
    scores = one.metrics.compute()
    assert results[0]["count"] == scores.total == 16
    assert results[0]["loss"] == pytest.approx(scores.loss, rel=1e-5)
    assert results[1]["mean"].tolist() == [0.5, 0.5]


def test_ranks_come_from_the_environment_then_the_options(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert distributed.read_ranks(False) == (0, 0, 1, False)
    assert distributed.read_ranks(True) == (0, 0, 1, False)
    assert distributed.read_ranks(True, world_size=4, local_rank=2) == (2, 2, 4, False)
    with pytest.raises(ValueError, match="--local-rank"):
        distributed.read_ranks(True, world_size=4)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert distributed.read_ranks(True) == (5, 1, 8, False)
    with pytest.raises(ValueError, match="--distributed"):
        distributed.read_ranks(False)
    with pytest.raises(ValueError, match="--world-size"):
        distributed.read_ranks(True, world_size=4)


def test_one_process_under_a_launcher_makes_a_group_unless_told_not_to(monkeypatch):
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert distributed.read_ranks(True) == (0, 0, 1, True)
    assert distributed.read_ranks(False) == (0, 0, 1, False)


def test_alone_the_reductions_do_nothing():
    tensor = torch.ones(2)
    assert distributed.all_reduce_sum(tensor) is tensor and tensor.tolist() == [1, 1]
    norm = nn.BatchNorm3d(2)
    before = copy.deepcopy(norm.state_dict())
    distributed.average_buffers(norm)
    assert all(torch.equal(v, before[k]) for k, v in norm.state_dict().items())
    assert distributed.wrap(norm, CPU) is norm


def test_every_seed_step_and_rank_has_a_dropout_of_its_own():
    steps, ranks = (1, 2, 10 ** 7), (0, 1)
    seeds = {dropout_seed(seed, step, rank) for seed in (0, 1, 2 ** 32 - 1) for step in steps for rank in ranks}
    assert len(seeds) == 18
    for seed in seeds:
        torch.manual_seed(seed)
    assert dropout_seed(1, 2, 0) == int(hashlib.sha256(b"1 2 0").hexdigest()[:16], 16) // 2


@pytest.mark.parametrize("text, contact", [
    ("[/x/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.1]:61", True),
    ("NCCL communicator was aborted on rank 1", True), ("HCCL error in: x", True),
    ("mat1 and mat2 shapes cannot be multiplied", False), ("DataLoader timed out after 5 seconds", False)])
def test_only_broken_contact_is_taken_for_it(monkeypatch, capsys, text, contact):
    here = Whereabouts()
    monkeypatch.setattr(distributed, "HERE", here)
    assert not distributed.lost_contact(RuntimeError(text))  # alone nobody can be lost
    here.watch = Watch(1, 2, 60.0, here=here)
    assert distributed.lost_contact(RuntimeError(text)) == contact == here.watch.is_lost
    assert ("rank 1 of 2 has lost the others at 'starting' (%s)" % text in capsys.readouterr().err) == contact
    distributed.stop()
    assert here.watch is None


def test_a_group_that_does_not_come_together_is_refused_with_the_option(tmp_path):
    with pytest.raises(ConnectionError, match="rank 0 of 2 .* --dist-timeout 0.5 seconds"):
        distributed.start(distributed.Ranks(0, 0, 2), "gloo", "file://%s/meet" % tmp_path, 0.5)
    assert not distributed.in_group() and distributed.HERE.watch is None


def test_processes_that_are_started_again_meet_where_those_before_left_nothing(monkeypatch):
    port = free_port()
    server = torch.distributed.TCPStore("127.0.0.1", port, 1, True)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RESTART_COUNT": "0",
                        "TORCHELASTIC_USE_AGENT_STORE": "True"}.items():
        monkeypatch.setenv(name, value)
    limit = datetime.timedelta(seconds=20)
    assert distributed._unused_store("env://", 1, limit) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert distributed._unused_store("tcp://127.0.0.1:1", 1, limit) is None
    server.set("rank 1", "the one before")
    store = distributed._unused_store("env://", 1, limit)
    store.set("rank 1", "now")
    assert server.get("rank 1") == b"the one before" and server.get("glore/attempt 2/rank 1") == b"now"
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    assert distributed._unused_store("env://", 1, limit) is None
