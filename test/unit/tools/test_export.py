"""tools.export: the graph is the network and computes no shape; files answer as PyTorch does, or are not there."""
import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES
from small_network import NAME, small_network

from network import NETWORKS, build_network
from tools import export, export_formats, export_verify
from tools.export_verify import Comparison
from tools.predictor import open_predictor
from tools.trained import named, open_trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
export_graph = pytest.importorskip("tools.export_graph")

SIMPLE = {"Conv", "Relu", "MaxPool", "Mul", "Add", "Reshape", "Transpose", "MatMul", "GlobalAveragePool", "Flatten",
          "Gemm"}
CLIP = (4, 32, 32)
GCN = "RESNET50_3D_GCN_X5"


def narrow(name):
    """A row of the table with its blocks and units, and few channels."""
    spec = NETWORKS[name]
    return spec._replace(stages=tuple(stage._replace(mid=4, out=8 * (number + 1))
                                      for number, stage in enumerate(spec.stages)))


def network(name, monkeypatch, channels=3):
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
            net(torch.nn.functional.interpolate(torch.randn(16, channels, 4, 2, 2), CLIP))  # smooth, as films are
    return net.eval()


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
    net, clip = network(name, monkeypatch), torch.randn((2, 3) + CLIP)
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


@pytest.mark.parametrize("opset", export_formats.OPSETS)
def test_every_opset_and_any_batch(opset, monkeypatch):
    net = network(GCN, monkeypatch, channels=2)
    model = export_graph.onnx_model(net, (2,) + CLIP, export_graph.OPEN, opset, {})
    assert model.opset_import[0].version == opset and model.ir_version <= 8
    assert set(node.op_type for node in model.graph.node) <= SIMPLE
    for count in (1, 3):
        assert_same(net, model, torch.randn((count, 2) + CLIP))


@pytest.mark.parametrize("normalize", [False, True])
def test_node_states_are_scaled_by_a_power_of_two(normalize, monkeypatch):
    net, clip, seen = network(GCN, monkeypatch), torch.randn(1, 3, 4, 64, 64), []
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


@pytest.mark.parametrize("positions", [1, 2, 3, 196, 784, 3136])
@pytest.mark.parametrize("largest", [0.0, 1e-12, 3e-4, 0.5, 100.0])
def test_the_factors_make_a_mean_as_far_as_weights_stay_small(positions, largest):
    of_state, of_proj = export_graph._factors(positions, np.array([[0.0, -largest]]))
    assert np.frexp(of_state)[0] == np.frexp(of_proj)[0] == 0.5 and of_proj <= 1 and of_state <= 1
    assert largest / (of_state * of_proj ** 2) <= max(largest, 16) and of_state * of_proj >= 0.5 / positions
    if largest <= 1e-12:
        assert of_state * of_proj <= 1 / positions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_videos):
    """A checkpoint of a narrow network with units, which says what it was trained on."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    with pytest.MonkeyPatch.context() as patch:
        net = network(GCN, patch)
        net.classifier = torch.nn.Linear(net.classifier.in_features, 3)
        config = {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32, "dataset": "folder", "split": 1,
                  "data_root": str(tiny_videos), "model_dir": "/secret"}
        torch.save({"state_dict": net.state_dict(), "class_names": list(CLASSES), "config": config}, str(path))
        yield str(path)


def exported(checkpoint, output, *words):
    return export.main([checkpoint, "--output", str(output), *words])


@pytest.mark.parametrize("words, clips", [
    ("--format onnx", 100), ("--dynamic-batch --opset 17 --clips 19", 19), ("--batch-size 3 --opset 14 --clips 19", 19),
    ("--format torchscript --clips 19", 19), ("--format safetensors --clips 19", 19)])
def test_files_answer_as_pytorch_does_on_real_clips(words, clips, checkpoint, tmp_path, capsys):
    if "safetensors" in words:
        pytest.importorskip("safetensors")
    assert exported(checkpoint, tmp_path / "model", "--verify", *words.split()) == 0
    said = capsys.readouterr()
    assert "identical top-1: %d of %d clips" % (clips, clips) in said.out
    assert "largest difference of a logit: " in said.out
    assert ("atc --framework=5" in said.out) == (words in ("--format onnx", "--batch-size 3 --opset 14 --clips 19"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_onnx_metadata_says_what_a_video_needs(checkpoint, tmp_path):
    assert exported(checkpoint, tmp_path / "m.onnx") == 0
    model = onnx.load(str(tmp_path / "m.onnx"))
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["class_names"] == list(CLASSES) and told["network"] == GCN and told["channels"] == ["R", "G", "B"]
    assert [told[name] for name in ("clip_length", "frame_interval", "crop_size", "short_side")] == [4, 3, 32, 37]
    assert told["mean"] == [124 / 255, 117 / 255, 104 / 255] and told["std"] == pytest.approx(0.2348, abs=1e-4)
    assert "/" not in told["checkpoint"] and not any("secret" in entry.value for entry in model.metadata_props)
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 4, 32, 32]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_takes_any_batch_and_carries_the_metadata(checkpoint, tmp_path):
    assert exported(checkpoint, tmp_path / "m.pt", "--format", "torchscript") == 0
    files = export_formats._extra_files({"metadata.json": ""})
    program = torch.jit.load(str(tmp_path / "m.pt"), _extra_files=files)
    text = files["metadata.json"]
    assert json.loads(text if isinstance(text, str) else text.decode())["class_names"] == list(CLASSES)
    network = open_trained(checkpoint, "cpu").network
    for clip in (torch.randn((1, 3) + CLIP), torch.randn((5, 3) + CLIP)):
        with torch.no_grad():
            assert torch.equal(program(clip), network(clip))


def test_safetensors_open_like_a_checkpoint(checkpoint, tiny_videos, tmp_path):
    library = pytest.importorskip("safetensors")
    path = str(tmp_path / "m.safetensors")
    assert exported(checkpoint, path, "--format", "safetensors") == 0
    before, after = open_trained(checkpoint, "cpu"), open_trained(path, "cpu")
    assert after.geometry == before.geometry and named(after) == named(before) and after.name == before.name
    assert after.config["dataset"] == "folder" and "data_root" not in after.config
    assert all(torch.equal(value, before.network.state_dict()[name])
               for name, value in after.network.state_dict().items())
    film = str(tiny_videos / "test" / "up" / "v0.avi")
    assert open_predictor(path, "cpu")(film) == open_predictor(checkpoint, "cpu")(film)
    with library.safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["class_names"]) == list(CLASSES)
        assert "conv3.B01_extra.blocker.weight" in file.keys()


def test_a_file_that_answers_otherwise_is_not_written(checkpoint, tmp_path, capsys, monkeypatch):
    honest = export_formats.FORMATS["onnx"]

    def other(trained, shape, metadata):
        with torch.no_grad():
            bias = trained.network.classifier.bias
            bias[0] += 3e-4
            data = honest.write(trained, shape, metadata)
            bias[0] -= 3e-4
        return data
    monkeypatch.setitem(export_formats.FORMATS, "onnx", honest._replace(write=other))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"an earlier one")
    assert exported(checkpoint, path, "--verify", "--clips", "9") == 1
    said = capsys.readouterr()
    assert "largest difference of a logit: 0.0003" in said.out and "identical top-1: " in said.out
    assert "m.onnx was not written" in said.err and path.read_bytes() == b"an earlier one"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("found, passed", [
    (Comparison(100, 100, 1e-4, 5.0), True), (Comparison(100, 100, 1.1e-4, 5.0), False),
    (Comparison(100, 99, 1e-6, 5.0), False), (Comparison(100, 100, float("nan"), 5.0), False)])
def test_both_must_hold(found, passed):
    assert found.passed == passed


def test_clips_come_from_all_over_the_videos_that_can_be_read(checkpoint, tiny_videos, tmp_path):
    trained = open_trained(checkpoint, "cpu")
    (tmp_path / "bad.avi").write_bytes(bytes(3000))
    (tmp_path / "good.avi").write_bytes((tiny_videos / "test" / "up" / "v0.avi").read_bytes())
    videos = export_verify.listed_videos([str(tmp_path), str(tiny_videos / "test")], "rgb")
    clips = list(export_verify.real_clips(trained, videos, 10))
    assert len(videos) == 11 and [len(clip) for clip in clips] == [8, 2]
    assert len(np.unique(torch.cat(clips)[:, :, 0, 0, 0].numpy(), axis=0)) >= 9
    with pytest.raises(ValueError, match="only 10 clips of the 11 videos can be read, 11 are wanted"):
        list(export_verify.real_clips(trained, videos, 11))


@pytest.mark.parametrize("words, message", [
    (["--opset", "10"], "--opset 10: takes 11 to 17"), (["--opset", "18"], "--opset 18: takes 11 to 17"),
    (["--batch-size", "0"], "--batch-size and --clips take 1 or more"), (["--clips", "0", "--verify"], "1 or more"),
    (["--dynamic-batch", "--batch-size", "2"], "--dynamic-batch takes any"),
    (["--format", "torchscript", "--opset", "13"], "--opset is of --format onnx"),
    (["--format", "safetensors", "--dynamic-batch"], "--dynamic-batch is of --format onnx"),
    (["--videos", "x.avi"], "are for --verify"), (["--verify", "--dataset", "motion11"], "motion10")])
def test_options_are_checked_before_anything_is_opened(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "open_trained", None)
    assert exported("w.pth", tmp_path / "m.onnx", *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words, message", [
    (["--format", "onnx"], "--format onnx needs what is not installed: pip install onnx\n"),
    (["--verify"], "--format onnx with --verify needs what is not installed: pip install onnx onnxruntime\n"),
    (["--format", "safetensors"], "pip install safetensors\n")])
def test_missing_packages_are_named_at_once(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_formats.importlib.util, "find_spec", lambda name: None)
    assert exported("w.pth", tmp_path / "m.onnx", *words) == 2
    assert message in capsys.readouterr().err


def test_a_place_that_cannot_be_written(checkpoint, tmp_path, capsys, monkeypatch):
    for output in (tmp_path, tmp_path / "none" / "m.onnx"):
        assert exported(checkpoint, output) == 2
        assert "--output %s: cannot be written" % output in capsys.readouterr().err
    before = Path(checkpoint).read_bytes()
    assert exported(checkpoint, checkpoint) == 2 and Path(checkpoint).read_bytes() == before
    assert "is the checkpoint itself" in capsys.readouterr().err

    def full(data, path):
        raise OSError(errno.ENOSPC, "full", str(path))
    monkeypatch.setattr(export, "write_atomically", full)
    assert exported(checkpoint, tmp_path / "m.onnx") == 2 and "--output: no room" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_weights_that_are_no_numbers(kind, checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint)
    content["state_dict"]["conv3.B01_extra.gcn.conv2.weight"][0, 1, 0] = float("nan")
    torch.save(content, str(tmp_path / "nan.pth"))
    assert exported(str(tmp_path / "nan.pth"), tmp_path / "m", "--format", kind) == 2
    assert "nan.pth: conv3.B01_extra.gcn.conv2.weight holds" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_exported(tmp_path, capsys, tiny_videos):
    (tmp_path / "text.pth").write_text("no weights")
    assert exported(str(tmp_path / "text.pth"), tmp_path / "m.onnx") == 2
    with small_network():
        torch.save(build_network(NAME, 3).state_dict(), str(tmp_path / "bare.pth"))
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m.onnx") == 2
        assert "does not name its 3 classes: give --classes" in capsys.readouterr().err
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        words = ["--classes", str(tmp_path / "names.txt"), "--crop-size", "32", "--clip-length", "2", "--verify"]
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m.onnx", *words) == 2
        assert "or give --videos PATH" in capsys.readouterr().err
        films = ["--videos", str(tiny_videos / "test"), "--clips", "9"]
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m.onnx", *words, *films) == 0
    assert "9 of 9 clips" in capsys.readouterr().out
