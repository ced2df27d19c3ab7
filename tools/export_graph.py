"""Writes a network of this toolkit as an ONNX graph made simple: what evaluation does not need lies in the weights.

A BatchNorm behind a convolution becomes its weights and bias; one before a ReLU a product and a sum, as Ascend's
compiler takes a BatchNormalization of four dimensions. Every size is a number, and nothing computes a shape. Constants
are folded in float64 and rounded once. A node has the name of its layer. Opsets 11 to 17 spell all of this alike.

Letters: N batch, C channels, O channels out, T, H, W, L = T*H*W positions, S states of a node, V nodes of the graph.
"""
import math
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from network.glore import GloReUnit
from network.resnet3d import Bottleneck3d, GloReResNet3d

INPUT, OUTPUT, BATCH = "clip", "logits", "N"
OPEN = -1  # a batch of any size
MOST_WEIGHT = 16.0


class Value(NamedTuple):
    """A tensor of the graph: its name, and its shape without the batch."""

    name: str
    shape: Tuple[int, ...]


class Graph:
    """Nodes and constants, as they are written."""

    def __init__(self, batch: int) -> None:
        self.batch = batch  # or OPEN
        self.nodes: List[Any] = []
        self.constants: List[Any] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        """Keeps values, float64 rounded to float32; the name."""
        array = np.ascontiguousarray(values, np.float32 if values.dtype == np.float64 else values.dtype)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def node(self, kind: str, name: str, inputs: Sequence[str], shape: Tuple[int, ...], **attributes: Any) -> Value:
        """One node, and what it computes."""
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return Value(name, shape)

    def reshape(self, name: str, x: Value, shape: Tuple[int, ...]) -> Value:
        """Each clip's values in another shape."""
        target = self.constant(name + ".shape", np.array((self.batch,) + shape, np.int64))
        return self.node("Reshape", name, [x.name, target], shape)


def _array(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _affine(norm: Any) -> Tuple[np.ndarray, np.ndarray]:
    """BatchNorm in evaluation as scale and shift, both (C,)."""
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _window(layer: Any, x: Value) -> Tuple[Tuple[int, ...], Dict[str, Any]]:
    """(T', H', W') of a convolution or pooling, and its attributes."""
    sizes = zip(x.shape[1:], layer.kernel_size, layer.stride, layer.padding)
    left = tuple((size + 2 * pad - kernel) // stride + 1 for size, kernel, stride, pad in sizes)
    return left, {"kernel_shape": list(layer.kernel_size), "strides": list(layer.stride),
                  "pads": list(layer.padding) * 2}


def _convolve(graph: Graph, name: str, x: Value, layer: Any, weight: np.ndarray, bias: Optional[np.ndarray]) -> Value:
    """(C, T, H, W) -> (O, T', H', W') with the layer's window and other constants: (O, C, ...) and (O,)."""
    left, attributes = _window(layer, x)
    inputs = [x.name, graph.constant(name + ".weight", weight)]
    inputs += [] if bias is None else [graph.constant(name + ".bias", bias)]
    return graph.node("Conv", name, inputs, weight.shape[:1] + left, **attributes)


def _conv_then(graph: Graph, name: str, x: Value, layer: Any, norm: Any = None) -> Value:
    """A convolution without bias, and the BatchNorm behind it."""
    if norm is None:
        return _convolve(graph, name, x, layer, _array(layer.weight), None)
    scale, shift = _affine(norm)
    return _convolve(graph, name, x, layer, _array(layer.weight) * scale.reshape(-1, 1, 1, 1, 1), shift)


def _relu(graph: Graph, name: str, x: Value) -> Value:
    return graph.node("Relu", name + ".relu", [x.name], x.shape)


def _normalised_relu(graph: Graph, name: str, x: Value, norm: Any) -> Value:
    """BatchNorm that follows no convolution, and ReLU."""
    scale, shift = (graph.constant("%s.bn.%s" % (name, word), values.reshape(1, -1, 1, 1, 1))       # (1, C, 1, 1, 1)
                    for word, values in zip(("scale", "shift"), _affine(norm)))
    x = graph.node("Mul", name + ".bn.scaled", [x.name, scale], x.shape)
    return _relu(graph, name, graph.node("Add", name + ".bn", [x.name, shift], x.shape))


def _stem(graph: Graph, name: str, x: Value, stem: Any) -> Value:
    """network.resnet3d.Stem."""
    x = _relu(graph, name, _conv_then(graph, name + ".conv", x, stem.conv, stem.bn))
    left, attributes = _window(stem.max_pool, x)
    return graph.node("MaxPool", name + ".max_pool", [x.name], x.shape[:1] + left, **attributes)


def _bottleneck(graph: Graph, name: str, x: Value, block: Any) -> Value:
    """network.resnet3d.Bottleneck3d."""
    first, middle, last, side = (name + part for part in (".conv_m1", ".conv_m2", ".conv_m3", ".conv_w1"))
    branch = _normalised_relu(graph, first, x, block.conv_m1.bn)
    branch = _conv_then(graph, first + ".conv", branch, block.conv_m1.conv, block.conv_m2.bn)
    branch = _conv_then(graph, middle + ".conv", _relu(graph, middle, branch), block.conv_m2.conv, block.conv_m3.bn)
    branch = _conv_then(graph, last + ".conv", _relu(graph, last, branch), block.conv_m3.conv)
    if block.first:
        x = _normalised_relu(graph, side, x, block.conv_w1.bn)
        x = _conv_then(graph, side + ".conv", x, block.conv_w1.conv)
    return graph.node("Add", name, [branch.name, x.name], branch.shape)


def _factors(positions: int, extend: np.ndarray) -> Tuple[float, float]:
    """Powers of two, of states a and of projections p, that make the sum over L positions about a mean: fewer halvings
    where the last convolution's weights, divided by a * p * p, would exceed MOST_WEIGHT.
    """
    bits, largest = (positions - 1).bit_length(), max(np.abs(extend).max(), 1e-30)
    halvings = min(max(0, math.floor(math.log2(MOST_WEIGHT / largest))), bits + bits // 2)
    of_proj = halvings // 3
    return math.ldexp(1.0, 2 * of_proj - halvings), math.ldexp(1.0, -of_proj)


def _features(graph: Graph, name: str, x: Value, layer: Any, factor: float) -> Value:
    """A unit's convolution with bias, times a factor: (C, T, H, W) -> (O, L)."""
    out = _convolve(graph, name, x, layer, _array(layer.weight) * factor, _array(layer.bias) * factor)
    return graph.reshape(name + ".flat", out, (out.shape[0], int(np.prod(out.shape[1:]))))


def _glore(graph: Graph, name: str, x: Value, unit: Any) -> Value:
    """network.glore.GloReUnit. Behind its ReLU all is linear and lies in one convolution.

    Powers of two, by which float32 rounds nothing, keep the sums over all positions within reach of a device that
    multiplies in fp16, as Ascend's does.
    """
    scale, shift = _affine(unit.blocker)
    extend = _array(unit.conv_extend.weight)[:, :, 0, 0, 0].dot(_array(unit.gcn.conv2.weight)[:, :, 0])     # (C, S)
    extend = extend * scale[:, None]                                                                # (C, S)
    positions = int(np.prod(x.shape[1:]))
    of_state, of_proj = _factors(positions, extend)
    state = _features(graph, name + ".conv_state", x, unit.conv_state,
                      of_state / positions if unit.normalize else of_state)                         # (S, L)
    proj = _features(graph, name + ".conv_proj", x, unit.conv_proj, of_proj)                        # (V, L)
    square = (state.shape[0], proj.shape[0])                                                        # (S, V)
    turned = graph.node("Transpose", name + ".conv_proj.turned", [proj.name], proj.shape[::-1], perm=[0, 2, 1])
    nodes = graph.node("MatMul", name + ".nodes", [state.name, turned.name], square)
    spread = _array(unit.gcn.conv1.weight)[:, :, 0].T + np.eye(square[1])                           # (V, V)
    inputs = [nodes.name, graph.constant(name + ".gcn.conv1.weight", spread)]
    nodes = graph.node("MatMul", name + ".gcn.conv1", inputs, square)
    bias = graph.constant(name + ".gcn.conv1.bias", _array(unit.gcn.conv1.bias) * of_state * of_proj)       # (V,)
    nodes = _relu(graph, name + ".gcn", graph.node("Add", name + ".gcn.biased", [nodes.name, bias], square))
    back = graph.node("MatMul", name + ".back", [nodes.name, proj.name], state.shape)               # (S, L)
    back = graph.reshape(name + ".back.clip", back, state.shape[:1] + x.shape[1:])                  # (S, T, H, W)
    weight = (extend / (of_state * of_proj * of_proj)).reshape(extend.shape + (1, 1, 1))            # (C, S, 1, 1, 1)
    reasoned = _convolve(graph, name + ".conv_extend", back, unit.conv_extend, weight, shift)
    return graph.node("Add", name, [x.name, reasoned.name], x.shape)


def _network(graph: Graph, clip: Value, net: GloReResNet3d) -> None:
    """network.resnet3d.GloReResNet3d in evaluation."""
    x = _stem(graph, "conv1", clip, net.conv1)
    for stage, parts in (("conv2", net.conv2), ("conv3", net.conv3), ("conv4", net.conv4), ("conv5", net.conv5)):
        for name, part in parts.named_children():
            assert isinstance(part, (Bottleneck3d, GloReUnit)), "a part of another kind: %s" % type(part)
            write = _glore if isinstance(part, GloReUnit) else _bottleneck
            x = write(graph, "%s.%s" % (stage, name), x, part)
    x = _normalised_relu(graph, "tail", x, net.tail.bn)
    x = graph.node("GlobalAveragePool", "globalpool", [x.name], (x.shape[0], 1, 1, 1))
    x = graph.node("Flatten", "globalpool.flat", [x.name], x.shape[:1], axis=1)
    inputs = [x.name] + [graph.constant("classifier." + word, _array(getattr(net.classifier, word)))
                         for word in ("weight", "bias")]
    graph.node("Gemm", OUTPUT, inputs, (net.num_classes,), transB=1)


def onnx_model(net: GloReResNet3d, clip_shape: Sequence[int], batch: int, opset: int, metadata: Dict[str, str]) -> Any:
    """The network in evaluation as an onnx.ModelProto: `clip` (N, C, T, H, W) float32 -> `logits` (N, K) float32.

    `clip_shape` is (C, T, H, W); N is `batch`, or whatever comes where that is OPEN; `opset` is 11 to 17.
    """
    graph, clip = Graph(batch), Value(INPUT, tuple(clip_shape))
    _network(graph, clip, net)
    first: Any = BATCH if batch == OPEN else batch
    inputs = [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [first] + list(clip.shape))]
    outputs = [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [first, net.num_classes])]
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(helper.make_graph(graph.nodes, net.name, inputs, outputs, graph.constants),
                              opset_imports=imports, producer_name="GloRe for PyTorch",
                              ir_version=helper.find_min_ir_version_for(imports))
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model
