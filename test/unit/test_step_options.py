"""The main job with micro-batches and what else a step can do, on a network of a few layers."""

import json

import pytest
import torch
from conftest import SMALL_CLIPS

import train_model
from network import NETWORKS, NetworkSpec
from network.resnet3d import StageSpec

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
    assert rows(resumed, "epoch")[-1]["val_loss"] == rows(whole, "epoch")[-1]["val_loss"]
    return whole, resumed


def test_micro_batches_repeat_over_a_resume_in_the_middle_of_an_epoch(tiny_videos, tmp_path):
    whole, resumed = assert_resumes(tiny_videos, tmp_path)
    assert [row["step"] for row in rows(whole, "train")] == [3, 6]
    content = checkpoint(resumed, 2)
    assert content["global_batch"] == 6 and content["position"] == {"epoch": 2, "samples": 0, "step": 6}
    assert json.loads((whole / "result.json").read_text())["steps"] == 6
