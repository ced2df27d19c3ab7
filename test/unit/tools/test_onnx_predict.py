"""The example: from the ONNX file alone, without torch and without this project, the answers of tools.predict."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import CLASSES, write_video
from film_numbers import FILMS
from small_network import NAME, small_network

from data.clip_dataset import ClipDataset, collate_clips
from data.device_transforms import DeviceTransform
from data.transforms import EvalTransform
from network import build_network
from tools import export
from tools.export_verify import listed_videos
from tools.onnx_predict import OnnxPredictor
from tools.predictor import open_predictor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[3]
GEOMETRY = {"clip_length": 4, "val_frame_interval": 3, "crop_size": 32}
ALONE = ("import runpy, sys; sys.modules.update(dict.fromkeys('torch data dataset network tools train onnx'.split())); "
         "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')")


@pytest.fixture(scope="module", params=[3, 2], ids=["rgb", "flow"])
def files(request, tmp_path_factory):
    """(checkpoint, the ONNX file of it, a folder of films or of flow)."""
    folder, channels = tmp_path_factory.mktemp("files"), request.param
    with small_network():
        torch.manual_seed(4)
        network = build_network(NAME, 3, channels=channels)
        torch.nn.init.normal_(network.classifier.weight, std=3)
        for _ in range(3):
            network(torch.randn(4, channels, 4, 32, 32))
        torch.save({"state_dict": network.state_dict(), "class_names": list(CLASSES), "config": GEOMETRY},
                   str(folder / "w.pth"))
        assert export.main([str(folder / "w.pth"), "--output", str(folder / "m.onnx"), "--batch-size", "2"]) == 0
        (films if channels == 3 else flows)(folder / "videos")
        yield str(folder / "w.pth"), str(folder / "m.onnx"), folder / "videos"


def films(folder):
    """Wide and high, longer and shorter than a clip spans, of an even and an odd number of frames; and real ones."""
    folder.mkdir()
    for number, (frames, size) in enumerate(((20, 48), (21, 37), (3, 60))):
        write_video(folder / ("film%d.avi" % number), number, (2, 1), frames, size)
    shutil.copy(str(FILMS / "h264_b.mp4"), str(folder))
    shutil.copy(str(FILMS / "mpeg4_gop12.avi"), str(folder))


def flows(folder):
    for number, (frames, height, width) in enumerate(((13, 48, 64), (12, 50, 41), (2, 40, 40))):
        (folder / str(number)).mkdir(parents=True)
        draw = np.random.RandomState(number)
        for frame in range(1, frames + 1):
            for axis in "xy":
                name = str(folder / str(number) / ("flow_%s_%05d.jpg" % (axis, frame)))
                cv2.imwrite(name, draw.randint(0, 256, (height, width)).astype(np.uint8))


def test_the_input_is_the_tools_own_to_the_bit(files):
    checkpoint, model, folder = files
    trained, predict = open_predictor(checkpoint, "cpu").trained, OnnxPredictor(model)
    videos = listed_videos([str(folder)], trained.modality)
    clips = ClipDataset(videos, 4, 3, EvalTransform(32, trained.geometry.eval_short_side), 0, False)
    assert len(videos) == len(list(folder.iterdir())) >= 3
    for row in range(len(videos)):
        expected = DeviceTransform(modality=trained.modality)(collate_clips([clips[(0, row)]]))
        assert np.array_equal(predict.clip(videos.path(row)), expected[0].numpy()), videos.path(row)


def test_it_answers_as_the_tool_does_and_needs_neither_torch_nor_this_project(files, tmp_path):
    checkpoint, model, folder = files
    shutil.copy(str(ROOT / "tools" / "onnx_predict.py"), str(tmp_path / "example.py"))
    (tmp_path / "text.avi").write_text("no film")
    paths = sorted(str(path) for path in folder.iterdir())
    done = subprocess.run([sys.executable, "-c", ALONE, "example.py", model, *paths, "text.avi", "--top", "2"],
                          cwd=str(tmp_path), stdout=subprocess.PIPE, check=True)
    answers = json.loads(done.stdout.decode())
    assert answers.pop() == {"path": "text.avi", "error": "no frame can be read"}
    predict = open_predictor(checkpoint, "cpu")
    for answer, path in zip(answers, paths):
        expected = predict(path, top=2)
        assert answer["path"] == path and len(answer["top"]) == 2
        for ours, theirs in zip(answer["top"], expected["top"]):
            assert ours["class"] == theirs["class"]
            assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)
    assert len({answer["top"][0]["probability"] for answer in answers}) > 1
