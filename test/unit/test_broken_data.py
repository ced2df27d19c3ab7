"""A data set of which some files are broken: training goes on with full batches, and every file is named once."""
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import CLASSES, SMALL_CLIPS

import train_model
from data.bad_videos import BadVideoBudgetExceeded
from data.clip_dataset import ClipDataset
from data.loaders import TrainSampler, train_loader
from data.transforms import TrainAugmentation
from data.video_list import VideoList

SMALL = SMALL_CLIPS + (
    "--batch-size 6 --device cpu --lr-base 0.01 --warmup-steps 2 --end-epoch 1 --task-name t --no-amp "
    "--no-precise-bn --bad-video-budget 0.5").split()
BROKEN = {"train/down/v0.avi": "empty", "train/left/v1.avi": "not a video file", "train/left/v4.avi": "not a regular",
          "train/up/v5.avi": "No such file"}
STATED = 60  # frames, by the list; each film has 20


@pytest.fixture
def videos(tiny_videos, tmp_path):
    """The tiny data set with four broken training videos and a broken test video of nine; two more are cut."""
    root = tmp_path / "videos"
    shutil.copytree(str(tiny_videos), str(root))
    (root / "train" / "down" / "v0.avi").write_bytes(b"")
    (root / "train" / "left" / "v1.avi").write_text("#EXTM3U\nv0.avi\n")
    for name in ("left/v4.avi", "up/v5.avi"):
        (root / "train" / name).unlink()
    os.mkfifo(str(root / "train" / "left" / "v4.avi"))
    (root / "train" / "up" / "v5.avi").symlink_to("nowhere.avi")
    (root / "test" / "up" / "v2.avi").write_bytes(bytes(3000))
    for name in ("down/v3.avi", "up/v1.avi"):
        film = root / "train" / name
        film.write_bytes(film.read_bytes()[:film.stat().st_size * 2 // 3])
    return root


def run(videos, out, *options, code=0):
    found = train_model.main(SMALL + ["--data-root", str(videos), "--model-dir", str(out)] + list(options))
    assert found == code
    return Path(str(out)) / "t"


def named(folder):
    return [os.path.relpath(json.loads(line)["path"], str(folder))
            for line in (folder / "bad_videos.jsonl").read_text().splitlines()]


def test_training_goes_on_and_a_resumed_run_is_the_same(videos, tmp_path):
    whole = run(videos, tmp_path / "whole", "--workers", "2")
    log = (whole / "train.log").read_text()
    result = json.loads((whole / "result.json").read_text())
    assert (result["steps"], result["num_videos"], result["num_unreadable"]) == (3, 9, 1)  # none is lost
    rows = [json.loads(line) for line in (whole / "bad_videos.jsonl").read_text().splitlines()]
    reasons = {os.path.relpath(row["path"], str(videos)): row["reason"] for row in rows}
    assert set(reasons) == set(BROKEN) | {"test/up/v2.avi"} and len(rows) == 5
    for name, reason in BROKEN.items():
        assert reason in reasons[name]
        assert log.count(name + " (") == 1
    assert log.count("evaluation: 1 of 9 videos cannot be read; each counts as an error") == 1
    run(videos, tmp_path / "cut", "--workers", "0", "--max-steps", "2")
    cut = run(videos, tmp_path / "cut", "--workers", "1", "--resume")
    one, other = (torch.load(str(folder / "model.pth")) for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sorted(named(cut)) == sorted(named(whole))  # the resumed run names none again


def test_the_budget_stops_with_the_list(videos, tmp_path, capsys):
    folder = run(videos, tmp_path, "--workers", "1", "--bad-video-budget", "0.1", code=2)
    error = capsys.readouterr().err
    assert re.search("[23] of 18 videos cannot be read, 10 % are allowed", error)
    assert all(json.loads(line)["path"] in error for line in (folder / "bad_videos.jsonl").read_text().splitlines())


def batches(root, workers, rank=0, world_size=1):
    """Two epochs of batches: clips, labels, rows, failures; the list states three times the frames of each film."""
    rows = [(label, "%s/v%d.avi" % (name, number)) for label, name in enumerate(CLASSES) for number in range(6)]
    videos = VideoList(str(root / "train"), [path for _, path in rows], [label for label, _ in rows],
                       frame_counts=[STATED if number % 2 else 0 for number in range(len(rows))])
    dataset = ClipDataset(videos, 4, 3, TrainAugmentation(32, (32, 40)), seed=3, training=True)
    sampler = TrainSampler(len(rows), 6 // world_size, rank, world_size, seed=3)
    loader = train_loader(dataset, sampler, workers, False)
    found = []
    for epoch in range(2):
        sampler.set_position(epoch)
        found += list(loader)
    loader.close()
    return videos, found


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_workers_agree_on_what_takes_the_place_of_broken_clips(videos, workers):
    rows, expected = batches(videos, 0)
    _, found = batches(videos, workers)
    assert len(expected) == len(found) == 6
    for one, other in zip(expected, found):
        assert one.clip.shape == (6, 4, 32, 32, 3) and one.readable.all()
        assert torch.equal(one.clip, other.clip) and torch.equal(one.index, other.index)
        assert torch.equal(one.label, other.label) and list(one.failures) == list(other.failures)
        assert one.label.tolist() == [rows.label(index) for index in one.index.tolist()]
        for path, reason in one.failures:  # what was drawn again stays in its place, what is broken does not
            row = [rows.path(index) for index in range(len(rows))].index(path)
            assert "of %d cannot be decoded" % STATED in reason or row not in one.index.tolist()
    redrawn = {path for batch in expected for path, reason in batch.failures if "cannot be decoded" in reason}
    assert len(redrawn) >= 3


def test_ranks_agree_too(videos):
    _, expected = batches(videos, 0)
    halves = [batches(videos, 1, rank, 2)[1] for rank in range(2)]
    for whole, first, second in zip(expected, *halves):
        assert torch.equal(whole.clip, torch.cat([first.clip, second.clip]))
        assert torch.equal(whole.index, torch.cat([first.index, second.index]))


def test_a_worker_passes_on_that_nothing_can_be_read(tmp_path):
    with pytest.raises(BadVideoBudgetExceeded, match="18 videos on end"):
        batches(tmp_path, 2)
