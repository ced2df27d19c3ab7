"""tools.export: files answer as PyTorch does, carry what a video needs, or are not there; what is wrong is named."""
import errno
import importlib.util
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLASSES
from narrow_network import GCN, narrow_network, smooth_clips
from small_network import NAME, small_network

from network import build_network
from tools import export, export_formats, export_verify
from tools.export_verify import Comparison
from tools.predictor import open_predictor
from tools.trained import named, open_trained

SCRIPT = ("--format", "torchscript")
ROOT = Path(__file__).resolve().parents[3]
HERE = {name: importlib.util.find_spec(name) is not None for name in ("onnx", "onnxruntime", "safetensors")}


def need(*names):
    for name in names:
        if not HERE[name]:
            pytest.skip("%s is not installed" % name)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_videos):
    """A checkpoint of a narrow network with units, which says what it was trained on."""
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    with pytest.MonkeyPatch.context() as patch:
        net = narrow_network(GCN, patch)
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
    need(*(("safetensors",) if "safetensors" in words else () if "torchscript" in words else ("onnx", "onnxruntime")))
    assert exported(checkpoint, tmp_path / "model", "--verify", *words.split()) == 0
    said = capsys.readouterr()
    assert "identical top-1: %d of %d clips" % (clips, clips) in said.out
    assert "largest difference of a logit: " in said.out
    assert ("atc --framework=5" in said.out) == (words in ("--format onnx", "--batch-size 3 --opset 14 --clips 19"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_onnx_metadata_says_what_a_video_needs(checkpoint, tmp_path):
    need("onnx")
    assert exported(checkpoint, tmp_path / "m.onnx") == 0
    model = importlib.import_module("onnx").load(str(tmp_path / "m.onnx"))
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["class_names"] == list(CLASSES) and told["network"] == GCN and told["channels"] == ["R", "G", "B"]
    assert [told[name] for name in ("clip_length", "frame_interval", "crop_size", "short_side")] == [4, 3, 32, 37]
    assert told["mean"] == [124 / 255, 117 / 255, 104 / 255] and told["std"] == pytest.approx(0.2348, abs=1e-4)
    assert "/" not in told["checkpoint"] and not any("secret" in entry.value for entry in model.metadata_props)
    assert [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 4, 32, 32]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_takes_any_batch_and_carries_the_metadata(checkpoint, tmp_path):
    assert exported(checkpoint, tmp_path / "m.pt", *SCRIPT) == 0
    files = export_formats._extra_files({"metadata.json": ""})
    program = torch.jit.load(str(tmp_path / "m.pt"), _extra_files=files)
    text = files["metadata.json"]
    assert json.loads(text if isinstance(text, str) else text.decode())["class_names"] == list(CLASSES)
    network = open_trained(checkpoint, "cpu").network
    for clip in (smooth_clips(1), smooth_clips(5)):
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
    def read_back(data, trained, shape):
        def answer(clips):
            with torch.no_grad():
                return trained.network(torch.from_numpy(clips)).numpy() + np.float32([3e-4, 0, 0])
        return answer
    other = export_formats.Format(lambda trained, shape, metadata: b"other", read_back, (), ())
    monkeypatch.setitem(export_formats.FORMATS, "torchscript", other)
    path = tmp_path / "m.pt"
    path.write_bytes(b"an earlier one")
    assert exported(checkpoint, path, *SCRIPT, "--verify", "--clips", "9") == 1
    said = capsys.readouterr()
    assert "largest difference of a logit: 0.0003" in said.out and "identical top-1: " in said.out
    assert "m.pt was not written" in said.err and path.read_bytes() == b"an earlier one"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_network_that_answers_no_numbers_is_named(checkpoint, tiny_videos):
    trained = open_trained(checkpoint, "cpu")
    trained.network.classifier.weight.data *= 1e38
    trained.network.classifier.weight.data *= 1e4
    videos = export_verify.listed_videos([str(tiny_videos / "test")], "rgb")
    with pytest.raises(ValueError, match="w.pth: PyTorch itself answers"):
        export_verify.compare(trained, None, export_verify.real_clips(trained, videos, 1))


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
    monkeypatch.setattr(export, "write_whole", full)
    assert exported(checkpoint, tmp_path / "m.pt", *SCRIPT) == 2
    assert "full" in capsys.readouterr().err


def test_weights_that_are_no_numbers(checkpoint, tmp_path, capsys):
    content = torch.load(checkpoint)
    content["state_dict"]["conv3.B01_extra.gcn.conv2.weight"][0, 1, 0] = float("nan")
    torch.save(content, str(tmp_path / "nan.pth"))
    assert exported(str(tmp_path / "nan.pth"), tmp_path / "m", *SCRIPT) == 2
    assert "nan.pth: conv3.B01_extra.gcn.conv2.weight holds" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_what_cannot_be_exported(tmp_path, capsys, tiny_videos):
    (tmp_path / "text.pth").write_text("no weights")
    assert exported(str(tmp_path / "text.pth"), tmp_path / "m", *SCRIPT) == 2
    with small_network():
        torch.save(build_network(NAME, 3).state_dict(), str(tmp_path / "bare.pth"))
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m", *SCRIPT) == 2
        assert "does not name its 3 classes: give --classes" in capsys.readouterr().err
        (tmp_path / "names.txt").write_text("a\nb\nc\n")
        words = ["--classes", str(tmp_path / "names.txt"), "--crop-size", "32", "--clip-length", "2", "--verify"]
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m", *SCRIPT, *words) == 2
        assert "or give --videos PATH" in capsys.readouterr().err
        films = ["--videos", str(tiny_videos / "test"), "--clips", "9"]
        assert exported(str(tmp_path / "bare.pth"), tmp_path / "m", *SCRIPT, *words, *films) == 0
    assert "9 of 9 clips" in capsys.readouterr().out


def test_the_commands_of_the_page_parse():
    need("onnx", "onnxruntime", "safetensors")
    page = (ROOT / "docs" / "EXPORT.md").read_text(encoding="utf-8")
    commands = [line for line in page.splitlines() if line.startswith("python -m tools.export ")]
    assert len(commands) >= 4
    for command in commands:
        export.check_options(export.parse(shlex.split(command)[3:]))
