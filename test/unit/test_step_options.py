"""The main job with micro-batches and what else a step can do, on a network of a few layers."""

import json
import math

import pytest
import torch
from conftest import SMALL_CLIPS
from torch import nn

import train_model
from network import NETWORKS, NetworkSpec, execution
from network.execution import can_execute
from network.resnet3d import GloReResNet3d, StageSpec
from tools import benchmark

STAGES = (StageSpec("conv2", 1, 4, 8, (1, 1, 1), (1,)), StageSpec("conv3", 1, 8, 16, (2, 2, 2), (), (1,)),
          StageSpec("conv4", 1, 8, 16, (1, 2, 2), (1,)), StageSpec("conv5", 1, 8, 16, (1, 2, 2), ()))
OPTIONS = SMALL_CLIPS + ("--network tiny --workers 0 --device cpu --lr-base 0.05 --warmup-steps 2 --end-epoch 2 "
                         "--task-name t --batch-size 3 --accumulate 2").split()


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    monkeypatch.setitem(NETWORKS, "TINY", NetworkSpec("TINY", STAGES, "none.pth", "nothing"))
    monkeypatch.setattr("train.record.draw_curves", lambda *arguments: False)  # takes longer than the training


def run(videos, out, *options, code=0):
    """Runs the job in this process; returns the run's folder."""
    assert train_model.main(OPTIONS + ["--data-root", str(videos), "--model-dir", str(out)] + list(options)) == code
    return out / "t"


def rows(folder, kind):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in lines if row["kind"] == kind]


def checkpoint(folder, epoch):
    return torch.load(str(folder / "checkpoints" / ("t_ep-%04d.pth" % epoch)))


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def assert_resumes(videos, out, *options):
    """A run that is stopped in the middle of its second epoch goes on and ends as one that is not; returns both."""
    whole = run(videos, out / "whole", *options)
    run(videos, out / "cut", "--max-steps", "4", "--workers", "2", *options)
    resumed = run(videos, out / "cut", "--resume", *options)
    assert_equal(torch.load(str(resumed / "model.pth")), torch.load(str(whole / "model.pth")))
    for key in ("state_dict", "optimizer"):
        assert_equal(checkpoint(resumed, 2)[key], checkpoint(whole, 2)[key])
    last = {key: value for key, value in rows(whole, "epoch")[-1].items() if key != "fps"}
    assert {**rows(resumed, "epoch")[-1], "fps": None} == {**last, "fps": None}
    return whole, resumed


def test_a_run_with_everything_on_repeats_over_a_resume_in_the_middle_of_an_epoch(tiny_videos, tmp_path):
    whole, resumed = assert_resumes(tiny_videos, tmp_path, "--clip-grad-norm", "0.5", "--ema-decay", "0.8",
                                    "--activation-checkpointing", "--no-precise-bn", "--execution",
                                    "folded" if can_execute("folded") else "reference")
    assert [row["step"] for row in rows(whole, "train")] == [3, 6]
    content = checkpoint(resumed, 2)
    assert content["global_batch"] == 6 and content["position"] == {"epoch": 2, "samples": 0, "step": 6}
    assert json.loads((whole / "result.json").read_text())["steps"] == 6
    norms = [row["gradient_norm"] for row in rows(whole, "train")]
    assert min(norms) > 0.5 and "gradient norm %.3g" % norms[1] in (whole / "train.log").read_text()
    ema, state = content["ema"], torch.load(str(resumed / "model.pth"))
    assert ema["steps"] == 6 and ema["decay"] == 0.8
    assert_equal(ema["weights"], state)
    assert_equal(ema["weights"], checkpoint(whole, 2)["ema"]["weights"])
    assert not torch.equal(content["state_dict"]["module.conv1.conv.weight"], state["conv1.conv.weight"])


def test_the_averaged_weights_are_scored_saved_and_evaluated(tiny_videos, tmp_path):
    options = ["--ema-decay", "0.8", "--end-epoch", "1"]
    folder = run(tiny_videos, tmp_path, *options)
    row, result = rows(folder, "epoch")[0], json.loads((folder / "result.json").read_text())
    assert result["loss"] == row["val_loss"] != row["last_step_val_loss"]
    said = "those of the last step: top-1 %.2f" % (100 * row["last_step_val_top1"])
    assert said in (folder / "train.log").read_text()
    for weights in (["--resume"], ["--pretrained", str(folder / "model.pth")]):
        run(tiny_videos, tmp_path, "--eval-only", *weights)
        found = json.loads((folder / "evaluation.json").read_text())
        assert found["loss"] == pytest.approx(row["val_loss"], rel=1e-6)
    plain = run(tiny_videos, tmp_path / "plain", "--end-epoch", "1")
    assert rows(plain, "epoch")[0]["val_loss"] == row["last_step_val_loss"]
    assert_equal(checkpoint(plain, 1)["state_dict"], checkpoint(folder, 1)["state_dict"])
    run(tiny_videos, tmp_path / "plain", "--ema-decay", "0.8", "--resume")
    assert checkpoint(tmp_path / "plain" / "t", 2)["ema"]["steps"] == 3
    assert "the average starts here" in (tmp_path / "plain" / "t" / "train.log").read_text()


class Recordings:
    """Stands in for CUDA graphs: what a network gave, and the gradients it got, are no numbers once a pass begins anew.

    As with PyTorch's own, that is what `cudagraph_mark_step_begin` says. `planted`: what goes wrong, for a test's test.
    """

    def __init__(self, monkeypatch, planted=""):
        self.given, self.begun, self.passes, self.modes, self.planted = [], 0, 0, [], planted
        monkeypatch.setattr(execution, "GRAPH_DEVICES", ("cuda", "cpu"))
        monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", self.begin)
        monkeypatch.setattr(nn.Module, "compile", self.compile_of())

    def compile_of(self):
        def compile(module, mode=None):
            self.modes.append(mode)

            def call(*args):
                if self.planted == "anew at each pass":
                    self.begin()
                self.passes += 1
                out = module._call_impl(*args)
                self.given += [out.detach(), *module.parameters()]
                return out
            module._compiled_call_impl = call
        return compile

    def begin(self):
        self.begun += 1
        for tensor in self.given:
            lost = tensor.grad if isinstance(tensor, nn.Parameter) else tensor
            if lost is not None:
                lost.fill_(math.nan)
        self.given.clear()


needs_compiled = pytest.mark.skipif(not can_execute("compiled"), reason="this PyTorch compiles no modules")
EVERYTHING = ["--execution", "compiled", "--ema-decay", "0.8", "--clip-grad-norm", "0.5"]


@needs_compiled
def test_nothing_is_read_after_a_cuda_graph_has_written_over_it(tiny_videos, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        plain = Recordings(patch)
        expected = run(tiny_videos, tmp_path / "plain", *EVERYTHING)
    assert set(plain.modes) == {None} and not plain.begun
    graphs = Recordings(monkeypatch)
    found = run(tiny_videos, tmp_path / "graphs", *EVERYTHING, "--cuda-graphs")
    assert set(graphs.modes) == {"reduce-overhead"}
    assert "execution compiled as CUDA graphs" in (found / "train.log").read_text()
    assert_equal(torch.load(str(found / "model.pth")), torch.load(str(expected / "model.pth")))
    assert_equal(checkpoint(found, 2)["state_dict"], checkpoint(expected, 2)["state_dict"])
    assert [row["val_loss"] for row in rows(found, "epoch")] == [row["val_loss"] for row in rows(expected, "epoch")]
    assert graphs.begun == graphs.passes - 6  # each pass but the second micro-batch of 6 steps


@needs_compiled
def test_the_stand_in_finds_gradients_that_were_written_over(tiny_videos, tmp_path, monkeypatch):
    Recordings(monkeypatch, "anew at each pass")
    run(tiny_videos, tmp_path, *EVERYTHING, "--cuda-graphs", "--max-bad-steps", "2", code=2)


@needs_compiled
def test_cuda_graphs_are_refused_off_cuda_before_anything_is_read(tmp_path, capsys):
    run(tmp_path / "none", tmp_path, *EVERYTHING, "--cuda-graphs", code=2)
    assert "--cuda-graphs: records the kernels of a CUDA device, and this one is cpu" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmark.main("step --device cpu --variants compiled-graphs".split())
    assert "CUDA graphs want --device cuda" in capsys.readouterr().err


@needs_compiled
def test_another_execution_after_compiled_is_that_execution(monkeypatch):
    Recordings(monkeypatch)
    net = GloReResNet3d(NETWORKS["TINY"], 5)
    for name, compiles in (("compiled", True), ("reference", False)):
        execution.set_execution(net, name)
        assert (net._compiled_call_impl is not None) == compiles


def test_what_does_not_go_together_is_refused(tiny_videos, tmp_path, capsys):
    for options, words in ((["--activation-checkpointing", "--execution", "compiled"], "--execution compiled decides"),
                           (["--cuda-graphs"], "--cuda-graphs: records what torch.compile made"),
                           (["--accumulate", "7"], "--accumulate"), (["--ema-decay", "1"], "--ema-decay 1.0"),
                           (["--clip-grad-norm", "-1"], "--clip-grad-norm -1.0")):
        run(tiny_videos, tmp_path, *options, code=2)
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said


def test_networks_are_described_without_any_data(tmp_path, capsys):
    argv = ["--describe", "--network", "RESNET50_3D_GCN_X5", "--dataset", "HMDB51", "--data-root", str(tmp_path),
            "--crop-size", "32", "--clip-length", "2"]
    assert train_model.main(argv) == 0
    said = capsys.readouterr().out
    assert "RESNET50_3D_GCN_X5, a clip of 3x2x32x32, 51 classes" in said
    assert "| conv4      | 1024x1x2x2 | 13,331,456 |" in said and "33.02 million parameters" in said
    assert "; without the GloRe units 27.27 million parameters" in said


def test_every_network_is_described_where_none_is_named(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(train_model, "build_network", lambda name, num_classes, channels: asked.append(name)
                        or GloReResNet3d(NETWORKS["TINY"], num_classes))
    assert train_model.main("--describe --crop-size 32 --clip-length 2".split()) == 0
    said = capsys.readouterr().out
    assert asked == list(NETWORKS) and said.count("TINY, a clip of 3x2x32x32, 101 classes") == len(NETWORKS)
