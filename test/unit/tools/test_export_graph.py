"""The ONNX graph is the network, in every opset and for any batch, and computes no shape."""
import numpy as np
import pytest
import torch
from narrow_network import CLIP, GCN, narrow_network, smooth_clips

from network import NETWORKS

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
export_graph = pytest.importorskip("tools.export_graph")

SIMPLE = {"Conv", "Relu", "MaxPool", "Mul", "Add", "Reshape", "Transpose", "MatMul", "GlobalAveragePool", "Flatten",
          "Gemm"}


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def assert_same(net, model, clip):
    """The graph's logits are the network's in float64."""
    with torch.no_grad():
        expected = net.double()(clip.double()).numpy()
    net.float()
    found = session(model).run(["logits"], {"clip": clip.numpy()})[0]
    assert found.shape == expected.shape and np.ptp(expected) > 1
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_static_graph_is_the_network_and_is_simple(name, monkeypatch):
    net, clip = narrow_network(name, monkeypatch), smooth_clips(2)
    model = export_graph.onnx_model(net, clip.shape[1:], 2, 11, {"a": "b"})
    assert_same(net, model, clip)
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) <= SIMPLE and kinds.count("Transpose") == (5 if "GCN" in name else 0)
    constants = {constant.name for constant in model.graph.initializer}
    assert all(node.input[1] in constants for node in model.graph.node if node.op_type in ("Reshape", "Conv", "Mul"))
    assert (model.opset_import[0].version, model.ir_version) == (11, 6)
    values = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for value in list(values.value_info) + list(values.output):
        assert all(size.dim_value > 0 for size in value.type.tensor_type.shape.dim), value.name


@pytest.mark.parametrize("opset", range(11, 18))
def test_every_opset_and_any_batch(opset, monkeypatch):
    net = narrow_network(GCN, monkeypatch, channels=2)
    model = export_graph.onnx_model(net, (2,) + CLIP, export_graph.OPEN, opset, {})
    assert model.opset_import[0].version == opset and model.ir_version <= 8
    assert set(node.op_type for node in model.graph.node) <= SIMPLE
    for count in (1, 3):
        assert_same(net, model, smooth_clips(count, 2))


@pytest.mark.parametrize("normalize", [False, True])
def test_node_states_are_scaled_by_a_power_of_two(normalize, monkeypatch):
    net, clip, seen = narrow_network(GCN, monkeypatch), smooth_clips(1, 3, (4, 64, 64)), []
    unit = net.conv3.B01_extra
    unit.normalize = normalize
    unit.gcn.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].numpy()))
    unit.blocker.weight.data *= 1e-3  # as where the sums are large
    model = export_graph.onnx_model(net, clip.shape[1:], 1, 13, {})
    with torch.no_grad():
        net(clip)
    model.graph.output.append(onnx.helper.make_tensor_value_info("conv3.B01_extra.nodes", 1, None))
    nodes = session(model).run(["conv3.B01_extra.nodes"], {"clip": clip.numpy()})[0]
    factor = np.abs(nodes).max() / np.abs(seen[0]).max()
    nearest = 2.0 ** np.round(np.log2(factor))
    assert nearest < 1 and np.allclose(nodes, seen[0] * nearest, rtol=1e-4, atol=1e-4 * np.abs(nodes).max())
    assert_same(net, model, clip)


def test_products_that_half_precision_cannot_hold_come_within_its_reach(monkeypatch):
    net, clip, seen = narrow_network(GCN, monkeypatch), smooth_clips(2), []
    unit = net.conv3.B01_extra
    with torch.no_grad():  # the same function by larger numbers
        for layer in (unit.conv_state, unit.conv_proj):
            layer.weight *= 8
            layer.bias *= 8
        unit.gcn.conv1.bias *= 8 ** 2
        unit.blocker.running_mean *= 8 ** 3
        unit.blocker.running_var *= 8 ** 6
    hook = unit.conv_extend.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].abs().max().item()))
    model = export_graph.onnx_model(net, clip.shape[1:], 2, 11, {})
    assert_same(net, model, clip)
    hook.remove()
    names = ["conv3.B01_extra." + name for name in ("conv_state", "conv_proj", "nodes", "gcn.biased", "back")]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    most = [np.abs(values).max() for values in session(model).run(names, {"clip": clip.numpy()})]
    largest_half = float(np.finfo(np.float16).max)
    assert seen[0] > 2 * largest_half and max(most) < largest_half / 2  # with room


@pytest.mark.parametrize("positions", [1, 2, 3, 196, 784, 3136])
@pytest.mark.parametrize("largest", [0.0, 1e-12, 3e-4, 0.5, 100.0])
def test_the_factors_make_a_mean_as_far_as_weights_stay_small(positions, largest):
    of_state, of_proj = export_graph._factors(positions, np.array([[0.0, -largest]]))
    assert np.frexp(of_state)[0] == np.frexp(of_proj)[0] == 0.5 and of_proj <= 1 and of_state <= 1
    assert largest / (of_state * of_proj ** 2) <= max(largest, 16) and of_state * of_proj >= 0.5 / positions
    if largest <= 1e-12:
        assert of_state * of_proj <= 1 / positions
