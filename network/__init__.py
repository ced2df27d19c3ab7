"""The networks: `build_network(name, num_classes, pretrained, channels)` and the table NETWORKS of their names."""
import difflib
import logging
from pathlib import Path
from typing import Union

from network.resnet3d import NETWORKS, GloReResNet3d, NetworkSpec
from network.weights import initialize, load_pretrained, pretrained_path

__all__ = ["NETWORKS", "NetworkSpec", "build_network", "find_network"]

_log = logging.getLogger(__name__)


def find_network(name: str) -> NetworkSpec:
    """The row of NETWORKS with that name, in any case; ValueError, with the nearest name, where there is none."""
    if name.upper() in NETWORKS:
        return NETWORKS[name.upper()]
    nearest = difflib.get_close_matches(name.upper(), list(NETWORKS), n=1)
    hint = "; did you mean %s?" % nearest[0] if nearest else ""
    raise ValueError("--network %s is not known: choose one of %s%s" % (name, ", ".join(NETWORKS), hint))


def build_network(name: str, num_classes: int, pretrained: Union[bool, str, Path] = False,
                  channels: int = 3) -> GloReResNet3d:
    """A network for clips of `channels` (RGB 3, flow 2), on the host, initialised, then loaded from its default file
    (True) or from the file named.

    The initial values come from torch's global generator. Errors: ValueError for an unknown name or a number of
    classes below 1, and those of network.weights.load_pretrained. What was loaded is logged.
    """
    net = GloReResNet3d(find_network(name), num_classes, channels)
    initialize(net)
    if pretrained:
        path = pretrained_path(net.name) if pretrained is True else pretrained
        _log.info("%s", load_pretrained(net, path).summary())
    return net
