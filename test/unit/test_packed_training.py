"""Training and evaluating from a packed store, end to end."""
import json
from pathlib import Path

import pytest
from conftest import SMALL_CLIPS

import train_model
from dataset import pack

SMALL = SMALL_CLIPS + ("--batch-size 6 --workers 0 --device cpu --lr-base 0.01 --warmup-steps 2 --end-epoch 1 "
                       "--network RESNET50_3D --no-precise-bn --task-name t").split()


def run(root, out, *options):
    assert train_model.main(SMALL + ["--data-root", str(root), "--model-dir", str(out)] + list(options)) == 0
    return Path(str(out)) / "t"


@pytest.fixture(scope="module")
def store(tiny_videos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "store"
    assert pack.main(["folder", "--data-root", str(tiny_videos), "--output", str(folder), "--workers", "2"]) == 0
    return folder


def test_trains_and_evaluates_from_a_store(store, tmp_path):
    options = ["--shuffle-window", "8", "--source", "packed", "--max-steps", "2", "--workers", "1"]
    folder = run(store, tmp_path, *options)
    result = json.loads((folder / "result.json").read_text())
    assert (result["num_videos"], result["num_unreadable"], result["dataset"]) == (9, 0, "folder")
    run(store, tmp_path, "--eval-only", "--resume")
    again = json.loads((folder / "evaluation.json").read_text())
    assert (again["accuracy_top1"], again["loss"]) == (result["accuracy_top1"], pytest.approx(result["loss"], 1e-5))


def test_a_window_of_plain_videos_is_refused(tiny_videos, tmp_path, capsys):
    words = SMALL + ["--data-root", str(tiny_videos), "--model-dir", str(tmp_path), "--shuffle-window", "8"]
    assert train_model.main(words) == 2
    assert "--shuffle-window 8: only a packed store" in capsys.readouterr().err
