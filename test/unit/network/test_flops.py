"""Parameter and multiply-add counts, against figures worked out by hand and the paper's."""
import pytest
import torch
from torch import nn

from network import build_network
from network.flops import count_flops, count_parameters, count_parts
from network.glore import GloReUnit


def test_small_layers_by_hand():
    net = nn.Sequential(nn.Conv3d(3, 4, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)), nn.Flatten(),
                        nn.Linear(4 * 2 * 4 * 4, 5))
    assert count_flops(net, (3, 2, 8, 8)) == (4 * 2 * 4 * 4) * (3 * 9) + (4 * 2 * 4 * 4) * 5
    assert count_flops(net, (2, 3, 2, 8, 8)) == 2 * count_flops(net, (3, 2, 8, 8))
    assert count_parameters(net) == 4 * 27 + 4 + 128 * 5 + 5


def test_glore_unit_by_hand():
    width, nodes, states, positions = 6, 4, 8, 2 * 3 * 5
    expected = width * (states + nodes) * positions         # the two projections
    expected += 2 * states * nodes * positions              # to the graph and back
    expected += nodes * nodes * states + states * states * nodes
    expected += states * width * positions                  # extension
    assert count_flops(GloReUnit(width, nodes), (width, 2, 3, 5)) == expected


def _stage_by_hand(num_in, blocks, mid, out, temporal, units, before, after):
    """Multiply-adds of a stage and of its GloRe units, after the specification; positions before and after the stride.
    """
    total = 0
    for number in range(1, blocks + 1):
        positions = before if number == 1 else after
        total += positions * num_in * mid * (3 if number in temporal else 1) + after * (mid * mid * 9 + mid * out)
        total += after * num_in * out if number == 1 else 0
        num_in = out
    states, nodes = 2 * mid, mid
    unit = after * (out * (states + nodes) + 2 * states * nodes + states * out)
    unit += states * nodes * (nodes + states)
    return total + units * unit, units * unit


@pytest.mark.parametrize("name, units, parameters, giga", [
    ("RESNET50_3D_GCN_X5", (2, 3), 33119301, 31.8), ("RESNET50_3D", (0, 0), 33119301 - 5746688, 25.3)])
def test_full_networks_by_hand(name, units, parameters, giga):
    clip = (3, 8, 224, 224)
    net = build_network(name, 101)
    rows = {part: (shape, count) for part, shape, count in count_parts(net, clip)}
    plane = 8 * 56 * 56
    stages = {"conv2": _stage_by_hand(32, 3, 64, 256, (1, 2, 3), 0, plane, plane),
              "conv3": _stage_by_hand(256, 4, 128, 512, (1, 3), units[0], plane, plane // 8),
              "conv4": _stage_by_hand(512, 6, 256, 1024, (1, 3, 5), units[1], plane // 8, plane // 32),
              "conv5": _stage_by_hand(1024, 3, 512, 2048, (2,), 0, plane // 32, plane // 128)}
    for part, expected in stages.items():
        assert (rows[part][1].multiply_adds, rows[part][1].glore_multiply_adds) == expected
    assert rows["conv1"][1] == (32 * 3 * 75 + 64, 32 * 8 * 112 * 112 * 3 * 75, 0, 0)
    assert rows["classifier"] == ((1, 101), (2048 * 101 + 101, 2048 * 101, 0, 0))
    assert rows["conv4"][0] == (1, 1024, 4, 14, 14) and rows["tail"][1] == (4096, 0, 0, 0)
    assert sum(count.multiply_adds for _, count in rows.values()) / 1e9 == pytest.approx(giga, abs=0.05)
    assert sum(count.parameters for _, count in rows.values()) == parameters == count_parameters(net)


def test_counting_changes_nothing():
    net = build_network("RESNET50_3D", 3)
    net.conv1.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count_flops(net, (3, 2, 32, 32))
    assert net.training and net.conv2.training and not net.conv1.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
