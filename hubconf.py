"""Entry points of torch.hub, from a copy of this project on disk:

    predict = torch.hub.load("path/to/this/folder", "trained", "exps/TASK/model.pth", source="local")
    print(predict("film.mp4")["top"])
"""
from typing import Union

from network import build_network
from network.resnet3d import GloReResNet3d
from tools.predictor import Predictor, open_predictor

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
