"""Networks of the table with all their blocks and units and few channels, as evaluation finds them after training."""
import torch

from network import NETWORKS, build_network

CLIP = (4, 32, 32)
GCN = "RESNET50_3D_GCN_X5"


def narrow(name):
    """A row of the table with its blocks and units, and few channels."""
    spec = NETWORKS[name]
    return spec._replace(stages=tuple(stage._replace(mid=4, out=8 * (number + 1))
                                      for number, stage in enumerate(spec.stages)))


def smooth_clips(count, channels=3, size=CLIP):
    """Clips as films are: neighbours are alike."""
    return torch.nn.functional.interpolate(torch.randn(count, channels, 4, 2, 2), size)


def narrow_network(name, monkeypatch, channels=3):
    """Such a network with statistics of its own and units that do something."""
    monkeypatch.setitem(NETWORKS, name, narrow(name))
    torch.manual_seed(3)
    net = build_network(name, 5, channels=channels)
    for parameter in net.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    torch.nn.init.normal_(net.classifier.weight, std=3)
    with torch.no_grad():
        for module in net.modules():
            module.momentum = None
        for _ in range(2):
            net(smooth_clips(16, channels))
    return net.eval()
