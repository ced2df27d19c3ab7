"""Parameter and multiply-add counts, against figures worked out by hand and the paper's."""
import pytest
import torch
from torch import nn

from network import build_network
from network.flops import count_flops, count_parameters
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


@pytest.mark.parametrize("name, parameters, giga", [
    ("RESNET50_3D_GCN_X5", 33119301, 31.8), ("RESNET50_3D", None, 25.3)])
def test_full_networks(name, parameters, giga):
    net = build_network(name, 101)
    assert count_flops(net, (3, 8, 224, 224)) / 1e9 == pytest.approx(giga, abs=0.05)
    assert parameters is None or count_parameters(net) == parameters


def test_counting_changes_nothing():
    net = build_network("RESNET50_3D", 3)
    net.conv1.eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    count_flops(net, (3, 2, 32, 32))
    assert net.training and net.conv2.training and not net.conv1.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
