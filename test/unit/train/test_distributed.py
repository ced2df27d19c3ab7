"""Who a process is, what it does alone, and what counts as having lost the others. Real groups: test_ranks.py."""

import copy
import datetime
import hashlib

import pytest
import torch
from torch import nn

from train import distributed
from train.launch import free_port
from train.loop import dropout_seed
from train.whereabouts import Watch, Whereabouts

CPU = torch.device("cpu")


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
