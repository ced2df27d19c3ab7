"""Entry points of torch.hub, from a copy of this project on disk:

    predict = torch.hub.load("path/to/this/folder", "trained", "exps/TASK/model.pth", source="local")
    print(predict("film.mp4")["top"])
"""
import os
import sys
from typing import Union

HERE = os.path.dirname(os.path.realpath(__file__))


def refuse_namesakes() -> None:
    """ImportError where the program has modules of its own by the names of this project's rooms."""
    for room in ("data", "dataset", "network", "tools", "train"):
        module = sys.modules.get(room)
        places = [os.path.realpath(place) for place in getattr(module, "__path__", ())]
        if module is not None and os.path.join(HERE, room) not in places:
            raise ImportError("another module %r is imported already (%s), and %s has one of that name: call "
                              "torch.hub.load in a program that does without the other"
                              % (room, getattr(module, "__file__", None), HERE))


refuse_namesakes()

from network import build_network  # noqa: E402
from network.resnet3d import GloReResNet3d  # noqa: E402
from tools.predictor import Predictor, open_predictor  # noqa: E402

dependencies = ["torch", "numpy", "cv2"]  # torch.hub looks for them first


def resnet50_3d_gcn_x5(num_classes: int = 400, pretrained: Union[bool, str] = False) -> GloReResNet3d:
    """ResNet-50 with five GloRe units: clips (N, 3, T, H, W) -> logits (N, K). `pretrained`: the network's own file in
    network/pretrained (True), or a file's path.
    """
    return build_network("RESNET50_3D_GCN_X5", num_classes, pretrained)


def resnet101_3d_gcn_x5(num_classes: int = 400, pretrained: Union[bool, str] = False) -> GloReResNet3d:
    """ResNet-101 with five GloRe units; see resnet50_3d_gcn_x5."""
    return build_network("RESNET101_3D_GCN_X5", num_classes, pretrained)


def resnet50_3d(num_classes: int = 400, pretrained: Union[bool, str] = False) -> GloReResNet3d:
    """ResNet-50 without graph units; see resnet50_3d_gcn_x5."""
    return build_network("RESNET50_3D", num_classes, pretrained)


def resnet101_3d(num_classes: int = 400, pretrained: Union[bool, str] = False) -> GloReResNet3d:
    """ResNet-101 without graph units; see resnet50_3d_gcn_x5."""
    return build_network("RESNET101_3D", num_classes, pretrained)


def trained(path: str, device: str = "auto", classes: str = "") -> Predictor:
    """What was trained, ready to be asked: `trained(path)("film.mp4")` gives its classes with their probabilities, and
    a list of them for several videos. `classes` names the classes of a file that does not.
    """
    return open_predictor(path, device, classes)
