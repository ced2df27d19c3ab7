"""Networks for optical flow: two channels in, RGB weights averaged into them, every execution, counted operations."""
import copy

import pytest
import torch
from torch import nn

from network import build_network
from network.execution import can_execute, set_execution
from network.flops import count_flops
from network.weights import WeightsError, load_pretrained

CLIP = torch.randn(2, 2, 3, 34, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def flow_net():
    return build_network("RESNET50_3D", 3, channels=2)


@pytest.fixture
def weight_file(tmp_path):
    def save(state):
        torch.save(state, str(tmp_path / "weights.pth"))
        return tmp_path / "weights.pth"
    return save


def test_only_the_first_convolution_differs(flow_net):
    rgb = build_network("RESNET50_3D", 3).state_dict()
    own = flow_net.state_dict()
    assert list(own) == list(rgb) and own["conv1.conv.weight"].shape == (32, 2, 3, 5, 5)
    assert [name for name in own if own[name].shape != rgb[name].shape] == ["conv1.conv.weight"]


def test_clips_of_other_channels_are_refused(flow_net):
    with pytest.raises(ValueError, match=r"takes clips \(N, 2, T, H, W\), not \(1, 3, "):
        flow_net(torch.zeros(1, 3, 2, 32, 32))


def test_operations_of_the_stem_by_hand(flow_net):
    less = 32 * 4 * 16 * 24 * (3 * 5 * 5)  # outputs of the stem, for the one channel that it reads less
    rgb = count_flops(build_network("RESNET50_3D", 3), (3, 4, 32, 48))
    assert rgb - count_flops(flow_net, (2, 4, 32, 48)) == less


@pytest.mark.skipif(not can_execute("folded"), reason="this PyTorch runs as reference")
@pytest.mark.parametrize("training", [False, True])
def test_the_folded_execution_computes_the_same(flow_net, training):
    net = nn.Sequential(copy.deepcopy(flow_net.conv1), copy.deepcopy(flow_net.conv2[0])).double().train(training)
    folded, results = copy.deepcopy(net), []
    set_execution(folded, "folded")
    for one in (net, folded):
        with torch.set_grad_enabled(training):
            results.append([one(CLIP.double())])
        if training:
            results[-1][0].pow(2).sum().backward()
            results[-1].append(one[0].conv.weight.grad)
    assert folded[0].folded is not None and results[0][-1].shape[:2] == ((32, 2) if training else (2, 256))
    for reference, own in zip(*results):
        assert (reference - own).abs().max() < 1e-9 * reference.abs().max()


def test_rgb_weights_are_averaged_over_their_channels(flow_net, weight_file):
    source = torch.randn(32, 3, 3, 5, 5)
    report = load_pretrained(flow_net, weight_file({"state_dict": {"module.conv1.conv.weight": source}}))
    expected = (source[:, 0] + source[:, 1] + source[:, 2]) / 3
    for channel in (0, 1):
        assert (flow_net.conv1.conv.weight[:, channel] - expected).abs().max() < 1e-6
    assert report.adapted == {"conv1.conv.weight": "mean over 3 channels, for each of 2"}
    assert report.loaded == ("conv1.conv.weight",)
    assert "adapted (mean over 3 channels, for each of 2): conv1.conv.weight" in report.summary()


def test_a_grey_clip_gives_two_thirds_of_what_rgb_gave(flow_net, weight_file):
    """The response to equal channels: a sum over two of three."""
    rgb = build_network("RESNET50_3D", 3)
    load_pretrained(flow_net, weight_file(rgb.state_dict()))
    grey = CLIP[:, :1]
    with torch.no_grad():
        one, other = rgb.conv1.conv(grey.expand(-1, 3, -1, -1, -1)), flow_net.conv1.conv(grey.expand(-1, 2, -1, -1, -1))
    assert (one * 2 / 3 - other).abs().max() < 1e-4


def test_planar_weights_are_inflated_and_averaged(flow_net, weight_file):
    source = torch.randn(32, 3, 5, 5)
    report = load_pretrained(flow_net, weight_file({"conv1.conv.weight": source}))
    expected = source.mean(1) / 3
    for frame in range(3):
        for channel in (0, 1):
            assert (flow_net.conv1.conv.weight[:, channel, frame] - expected).abs().max() < 1e-6
    assert "conv1.conv.weight" in report.adapted


def test_flow_weights_go_into_flow_alone(flow_net, weight_file):
    path = weight_file(flow_net.state_dict())
    report = load_pretrained(build_network("RESNET50_3D", 3, channels=2), path)
    assert not report.adapted and not report.skipped and not report.initial
    with pytest.raises(WeightsError, match="clips of 2 channels .flow has 2., this one takes 3; see --modality"):
        load_pretrained(build_network("RESNET50_3D", 3), path)
    with pytest.raises(WeightsError, match="clips of 1 channels"):
        load_pretrained(flow_net, weight_file({"conv1.conv.weight": torch.zeros(32, 1, 3, 5, 5)}))
    with pytest.raises(WeightsError, match="the file's shape is"):
        load_pretrained(flow_net, weight_file({"conv1.conv.weight": torch.zeros(32, 3, 3, 7, 7)}))
