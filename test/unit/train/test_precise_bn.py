"""Precise BN gives the statistics of all batches together and changes nothing else."""

import copy

import torch
from features import assert_close
from torch import nn

from train.precise_bn import reestimate_statistics


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 4, 1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 3, 1), nn.BatchNorm3d(3))


def test_statistics_are_those_of_all_batches_and_nothing_else_changes():
    net = _net().eval()
    batches = [torch.randn(4, 2, 2, 5, 5) * (i + 1) + i for i in range(6)]
    before = copy.deepcopy(net.state_dict())
    used = reestimate_statistics(net, [lambda batch=batch: net(batch) for batch in batches])
    assert used == 6
    assert not net.training and net[1].momentum == 0.1
    for name, value in net.state_dict().items():
        if "running" not in name:
            assert torch.equal(value, before[name]), name
    everything = torch.cat([net[0](batch) for batch in batches])  # (24, 4, 2, 5, 5)
    flat = everything.transpose(0, 1).reshape(4, -1)  # (4, 24 * 2 * 5 * 5)
    assert_close(net[1].running_mean, flat.mean(1), rtol=1e-4, atol=1e-5)
    assert_close(net[1].running_var, flat.var(1, unbiased=False), rtol=0.01, atol=1e-4)


def test_without_batches_the_buffers_keep_what_they_had():
    net = _net()
    net(torch.randn(4, 2, 2, 5, 5))
    before = copy.deepcopy(net.state_dict())
    assert reestimate_statistics(net, []) == 0
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_processes_are_pooled():
    first, second, both = _net(), _net(), _net()
    batches = [torch.randn(4, 2, 2, 5, 5) + i for i in range(4)]
    sums = []

    def collect(flat):
        sums.append(flat)
        return flat

    reestimate_statistics(second, [lambda b=b: second(b) for b in batches[2:]], collect)
    reestimate_statistics(first, [lambda b=b: first(b) for b in batches[:2]], lambda flat: flat + sums[0])
    reestimate_statistics(both, [lambda b=b: both(b) for b in batches])
    assert_close(first[4].running_var, both[4].running_var, rtol=1e-5, atol=1e-6)
    assert_close(first[4].running_mean, both[4].running_mean, rtol=1e-5, atol=1e-6)
