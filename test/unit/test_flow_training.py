"""--modality flow from video files to a checkpoint: prepared, trained, resumed, evaluated, and kept apart from RGB."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import SMALL_CLIPS

import train_model
from dataset import prepare
from network import build_network

SMALL = SMALL_CLIPS + ("--network RESNET50_3D --modality flow --clip-length 2 --batch-size 4 --workers 0 --device cpu "
                       "--lr-base 0.01 --end-epoch 1 --task-name t --no-precise-bn --max-steps").split()


@pytest.fixture(scope="module")
def flow_root(tiny_videos, tmp_path_factory):
    """Six of the tiny videos, with raw frames and flow."""
    folder = tmp_path_factory.mktemp("flow")
    for part, names in (("train", ("v0.avi", "v1.avi")), ("test", ("v0.avi",))):
        for label in ("left", "up"):
            target = folder / "films" / part / label
            target.mkdir(parents=True)
            for name in names:
                shutil.copyfile(str(tiny_videos / part / label / name), str(target / (part + name)))
    assert prepare.main(["folder", "--source", str(folder / "films"), "--output", str(folder / "out"), "--rawframes",
                         "--flow", "--workers", "1"]) == prepare.READY
    return folder / "out"


def run(root, out, steps, *options, code=0):
    assert train_model.main(SMALL + [steps, "--data-root", str(root), "--model-dir", str(out)] + list(options)) == code
    return Path(str(out)) / "t"


def test_flow_trains_resumes_and_evaluates_apart_from_rgb(flow_root, tmp_path, capsys):
    torch.save(build_network("RESNET50_3D", 2).state_dict(), str(tmp_path / "rgb.pth"))
    options = ["--end-epoch", "2", "--mixup", "0.5", "--random-erasing", "0.5"]
    folder = run(flow_root, tmp_path, "1", *options, "--pretrained", str(tmp_path / "rgb.pth"))
    assert "adapted (mean over 3 channels, for each of 2): conv1.conv.weight" in (folder / "train.log").read_text()
    run(flow_root, tmp_path, "2", *options, "--resume")
    content = torch.load(str(folder / "checkpoints" / "t_ep-0002.pth"))
    assert content["config"]["modality"] == "flow" and content["position"]["step"] == 2
    assert content["state_dict"]["module.conv1.conv.weight"].shape == (32, 2, 3, 5, 5)
    result = json.loads((folder / "result.json").read_text())
    assert (result["modality"], result["num_videos"], result["num_unreadable"]) == ("flow", 2, 0)
    run(flow_root, tmp_path, "1", "--eval-only", "--pretrained", str(folder / "model.pth"))
    assert json.loads((folder / "evaluation.json").read_text())["loss"] == pytest.approx(result["loss"], rel=1e-5)
    capsys.readouterr()
    run(flow_root, tmp_path, "3", *options, "--resume", "--modality", "rgb", code=2)
    assert "modality was flow, is rgb" in capsys.readouterr().err
    run(flow_root, tmp_path, "1", "--modality", "rgb", "--pretrained", str(folder / "model.pth"), code=2)
    assert "this one takes 3; see --modality" in capsys.readouterr().err


def test_without_flow_the_command_that_makes_it_is_said(tiny_videos, tmp_path, capsys):
    run(tiny_videos, tmp_path, "1", code=2)
    said = capsys.readouterr().err
    assert "python -m dataset.prepare folder --source PATH --output %s --flow" % tiny_videos in said
    run(tiny_videos, tmp_path, "1", "--source", "video", code=2)
    assert "--source video has no --modality flow" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
