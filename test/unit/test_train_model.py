"""The main job from the command line to the files it leaves, on real video files of a tiny data set."""

import json
import shutil
import subprocess
from pathlib import Path

import apex_stand_in
import cv2
import numpy as np
import pytest
import torch
from conftest import SMALL_CLIPS, write_video
from features import assert_close
from small_network import small_network

import train_model
from network import build_network
from train.amp_choice import fault_of
from train.record import PNG_NAME

GOLDEN = Path(__file__).parent / "golden"
SMALL = SMALL_CLIPS + (
    "--batch-size 6 --workers 0 --device cpu --lr-base 0.01 --warmup-steps 2 --end-epoch 1 --task-name t").split()

CPU = torch.device("cpu")
HALF = ["--opt-level", "O2", "--loss-scale", "128", "--amp-dtype", "fp32"]  # the level's bookkeeping on any CPU


def run(videos, out, *options, code=0):
    """Runs the job in this process; returns the run's folder."""
    found = train_model.main(SMALL + ["--data-root", str(videos), "--model-dir", str(out)] + list(options))
    assert found == code
    folder = Path(str(out)) / "t"
    if code == 0 and (folder / "train.log").exists():  # code 0, but weights of some step before the end
        assert "stopped by" not in (folder / "train.log").read_text(), "somebody sent this process a signal"
    return folder


def losses(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(row["kind"], row["step"], row.get("loss", row.get("val_loss"))) for row in rows]


def weights(folder):
    return torch.load(str(folder / "model.pth"))


def assert_equal(one, other):
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def two_epochs(tiny_videos, tmp_path_factory):
    """One finished run of two epochs."""
    out = tmp_path_factory.mktemp("two")
    return run(tiny_videos, out, "--end-epoch", "2", *HALF)


def test_a_run_leaves_everything(two_epochs):
    result = json.loads((two_epochs / "result.json").read_text())
    wanted = (
        "name accuracy_top1 accuracy_top5 fps epochs amp_type data_wait_share seconds num_videos protocol device torch")
    assert set(wanted.split()) <= set(result)
    assert (result["name"], result["epochs"], result["num_videos"]) == ("1p-CPU", 2, 9)
    assert result["accuracy_top5"] == 100.0 and result["fps"] > 0 and result["class_names"] == ["down", "left", "up"]
    assert result["amp_type"] == "O2 (computed fp32)"
    assert (two_epochs / PNG_NAME).stat().st_size > 10000
    assert "epoch 2" in (two_epochs / "train.log").read_text()
    assert [row[:2] for row in losses(two_epochs)] == [("train", 3), ("epoch", 3), ("train", 6), ("epoch", 6)]
    with np.load(str(two_epochs / "scores.npz"), allow_pickle=False) as file:
        hits = (file["scores"].argmax(1) == file["label"]) & file["readable"]
        assert 100 * hits.mean() == pytest.approx(result["accuracy_top1"]) and file["path"][0] == "down/v0.avi"
    about = json.loads((two_epochs / "run.json").read_text())
    assert (about["last_step"], about["steps_per_epoch"], about["global_batch"]) == (6, 3, 6)
    assert about["config"]["lr_base"] == 0.01 and about["class_names"] == ["down", "left", "up"]


def test_the_weights_have_the_names_of_the_public_checkpoints(two_epochs):
    rows = json.loads((GOLDEN / "a_state_dict.json").read_text())["RESNET50_3D_GCN_X5/101"]["state"]
    state = weights(two_epochs)
    assert list(state) == [row[0] for row in rows]
    build_network("RESNET50_3D_GCN_X5", 3).load_state_dict(state, strict=True)


def test_a_checkpoint_holds_the_whole_run(two_epochs):
    files = sorted(p.name for p in (two_epochs / "checkpoints").glob("*.pth"))
    assert files == ["t_ep-0001.pth", "t_ep-0002.pth"]
    content = torch.load(str(two_epochs / "checkpoints" / files[1]))
    assert content["schema"] == 1 and content["epoch"] == 2
    assert content["position"] == {"epoch": 2, "samples": 0, "step": 6}
    assert content["global_batch"] == 6 and content["class_names"] == ["down", "left", "up"]
    assert content["config"]["lr_base"] == 0.01 and content["scaler"]["scale"] == 128.0
    assert_equal({k[len("module.") :]: v for k, v in content["state_dict"].items()}, weights(two_epochs))
    assert len(content["optimizer"]) == len(list(build_network("RESNET50_3D_GCN_X5", 3).parameters()))


def test_the_seed_decides_the_losses_whatever_the_workers(two_epochs, tiny_videos, tmp_path):
    again = run(tiny_videos, tmp_path, "--end-epoch", "2", *HALF, "--workers", "4")
    assert losses(again) == losses(two_epochs)
    assert_equal(weights(again), weights(two_epochs))
    other = run(tiny_videos, tmp_path / "other", *HALF, "--random-seed", "2")
    assert losses(other)[0] != losses(two_epochs)[0]


def test_resume_ends_as_the_uninterrupted_run(two_epochs, tiny_videos, tmp_path):
    options = HALF
    run(tiny_videos, tmp_path, "--end-epoch", "1", *options)
    folder = run(tiny_videos, tmp_path, "--end-epoch", "2", "--resume", *options)
    assert_equal(weights(folder), weights(two_epochs))
    assert losses(folder) == losses(two_epochs)


def test_a_run_cut_by_max_steps_goes_on_in_the_middle_of_its_epoch(two_epochs, tiny_videos, tmp_path):
    options = [*HALF, "--end-epoch", "2"]
    run(tiny_videos, tmp_path, "--max-steps", "4", *options)
    folder = run(tiny_videos, tmp_path, "--resume", *options)
    assert_equal(weights(folder), weights(two_epochs))


def test_with_all_mixing_on_a_run_repeats_whatever_the_workers_and_over_resume(two_epochs, tiny_videos, tmp_path):
    options = [*HALF, "--no-precise-bn", "--mixup", "0.8", "--cutmix", "1", "--random-erasing", "0.5",
               "--label-smoothing", "0.1", "--max-steps"]
    whole = run(tiny_videos, tmp_path / "whole", *options, "3")
    run(tiny_videos, tmp_path / "cut", *options, "1", "--workers", "2")
    resumed = run(tiny_videos, tmp_path / "cut", *options, "3", "--resume")
    assert_equal(weights(resumed), weights(whole))
    assert losses(whole)[0][:2] == ("train", 3) and losses(whole)[0] != losses(two_epochs)[0]
    assert 0 < losses(whole)[0][2] < 10


TINY = ["--clip-length", "2"]  # half types take many times as long where a CPU only imitates them
BF16 = TINY + ["--opt-level", "O2", "--amp-dtype", "bf16"]  # dynamic scale
needs_half = pytest.mark.skipif(
    bool(fault_of("O1", torch.bfloat16, CPU) or fault_of("O2", torch.bfloat16, CPU)), reason="no bf16 on this CPU")


def plant_an_overflow(monkeypatch, at):
    """Step number `at` of the run overflows; the trial at its start is number 0."""
    calls = []

    def all_finite(tensors):
        calls.append(1)
        return len(calls) - 1 != at or at == 0
    monkeypatch.setattr("train.amp.all_finite", all_finite)


@pytest.fixture
def narrow():
    """The options of a small network, as half types may be imitated here."""
    with small_network() as name:
        yield ["--network", name]


@needs_half
def test_a_dynamic_scale_and_the_master_weights_survive_resume(tiny_videos, tmp_path, monkeypatch, narrow):
    options = [*BF16, *narrow, "--no-precise-bn", "--max-steps"]
    plant_an_overflow(monkeypatch, 1)
    whole = run(tiny_videos, tmp_path / "whole", *options, "3")
    plant_an_overflow(monkeypatch, 1)
    cut = run(tiny_videos, tmp_path / "cut", *options, "2")
    content = torch.load(str(cut / "checkpoints" / "t_ep-0000.pth"))
    assert content["scaler"] == {"dynamic": True, "scale": 2.0**15, "good_steps": 1, "skipped": 1}
    assert content["position"]["step"] == 2  # a skipped step counts
    state = [v for v in content["state_dict"].values() if v.is_floating_point()]
    assert all(v.dtype == torch.float32 for v in state)
    assert any(not torch.equal(v, v.bfloat16().float()) for v in state)  # not the half copies
    plant_an_overflow(monkeypatch, 0)
    resumed = run(tiny_videos, tmp_path / "cut", *options, "3", "--resume")
    assert_equal(weights(resumed), weights(whole))
    assert json.loads((resumed / "result.json").read_text())["skipped_steps"] == 1
    content = torch.load(str(resumed / "checkpoints" / "t_ep-0001.pth"))
    assert content["scaler"] == {"dynamic": True, "scale": 2.0**15, "good_steps": 2, "skipped": 1}


@needs_half
def test_levels_change_between_runs(tiny_videos, tmp_path, narrow):
    for steps, options, scale in ((1, TINY + ["--opt-level", "O0"], 1.0), (2, BF16, 2.0**16),
                                  (3, TINY + ["--no-amp"], 1.0)):
        folder = run(tiny_videos, tmp_path, "--no-precise-bn", "--max-steps", str(steps), *options, *narrow,
                     *(["--resume"] if steps > 1 else []))
        result = json.loads((folder / "result.json").read_text())
        assert (result["amp_type"], result["steps"]) == ("O2" if steps == 2 else "O0", steps)
        newest = sorted((folder / "checkpoints").iterdir())[-1]
        assert torch.load(str(newest))["scaler"]["scale"] == scale


@needs_half
def test_apex_trains_the_real_network_and_native_goes_on_from_its_checkpoint(tiny_videos, tmp_path, monkeypatch):
    amp = apex_stand_in.install(monkeypatch)
    options = ["--no-precise-bn", "--max-steps"]
    folder = run(tiny_videos, tmp_path, *TINY, "--amp", "--amp-engine", "apex", *options, "2")
    assert amp.initialized["opt_level"] == "O2" and amp.unskipped == 2
    assert "loss scale dynamic from 65536, by apex" in (folder / "train.log").read_text()
    assert json.loads((folder / "result.json").read_text())["amp_type"] == "O2"
    content = torch.load(str(folder / "checkpoints" / "t_ep-0000.pth"))
    assert content["scaler"] == {"dynamic": True, "scale": 2.0**16, "good_steps": 2, "skipped": 0}
    assert len(content["optimizer"]) == len(list(build_network("RESNET50_3D_GCN_X5", 3).parameters()))
    native = run(tiny_videos, tmp_path / "native", *BF16, *options, "2")
    assert losses(folder)[0][2] == pytest.approx(losses(native)[0][2], rel=0.01)
    folder = run(tiny_videos, tmp_path, "--resume", *BF16, *options, "3")
    assert "epoch 1 step 3" in (folder / "train.log").read_text()


def test_a_second_run_moves_the_first_aside(tiny_videos, tmp_path):
    first = weights(run(tiny_videos, tmp_path, "--max-steps", "1", "--no-precise-bn"))
    run(tiny_videos, tmp_path, "--max-steps", "1", "--no-precise-bn", "--random-seed", "7")
    assert_equal(weights(tmp_path / "t.old-1"), first)
    log = (tmp_path / "t" / "train.log").read_text()
    assert "in force" in log and "t.old-1" in log


def test_a_run_that_cannot_start_touches_nothing(tiny_videos, tmp_path):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "mine").write_text("kept")
    for options in (["--batch-size", "64"], ["--lr-steps", "1"], ["--resume"], ["--pretrained", "none.pth"]):
        run(tiny_videos, tmp_path, *options, code=2)
    assert [p.name for p in tmp_path.iterdir()] == ["t"] and [p.name for p in (tmp_path / "t").iterdir()] == ["mine"]


def test_a_dry_run_checks_and_writes_nothing(tiny_videos, tmp_path, capsys):
    train_model.main(SMALL + ["--data-root", str(tiny_videos), "--model-dir", str(tmp_path / "out"), "--dry-run"])
    assert not (tmp_path / "out").exists() and capsys.readouterr().out == ""
    run(tmp_path, tmp_path, "--dry-run", code=2)


def test_evaluation_alone_gives_the_same_numbers(two_epochs, tiny_videos, tmp_path):
    result = json.loads((two_epochs / "result.json").read_text())
    shutil.copytree(str(two_epochs), str(tmp_path / "t"))
    folder = run(tiny_videos, tmp_path, "--eval-only", "--resume", *HALF)
    for options in ([], ["--eval-only", "--pretrained", str(two_epochs / "model.pth"), *HALF]):
        if options:
            run(tiny_videos, tmp_path, *options)
        found = json.loads((folder / "evaluation.json").read_text())
        assert (found["accuracy_top1"], found["num_videos"]) == (result["accuracy_top1"], 9)
        assert found["loss"] == pytest.approx(result["loss"], rel=1e-6)
    assert json.loads((folder / "result.json").read_text()) == result


def test_fine_tuning_starts_from_a_checkpoint_of_other_classes(two_epochs, tiny_videos, tmp_path):
    videos = tmp_path / "two_classes"
    for part in ("train", "test"):
        for name in ("left", "up"):
            shutil.copytree(str(tiny_videos / part / name), str(videos / part / name))
    source = two_epochs / "checkpoints" / "t_ep-0002.pth"
    folder = run(videos, tmp_path, "--fine-tune", "--pretrained", str(source), "--max-steps", "1", "--lr-base", "1e-9",
                 "--weight-decay", "0")
    state, before = weights(folder), weights(two_epochs)
    assert state["classifier.weight"].shape == (2, 2048)
    assert_close(state["conv4.B01_extra.gcn.conv1.weight"], before["conv4.B01_extra.gcn.conv1.weight"])
    assert "skipped (for 3 classes, not 2): classifier.weight, classifier.bias" in (folder / "train.log").read_text()


def test_a_broken_video_is_named_counted_and_bounded(tiny_videos, tmp_path, capsys):
    videos = tmp_path / "videos"
    shutil.copytree(str(tiny_videos), str(videos))
    (videos / "train" / "up" / "v1.avi").write_bytes(b"RIFF\x00\x00\x00\x00AVI nothing")
    (videos / "test" / "up" / "v0.avi").write_bytes(b"")
    folder = run(videos, tmp_path, "--bad-video-budget", "0.2", "--no-precise-bn")
    log = (folder / "train.log").read_text()
    assert log.count("cannot be read: ") == 2 and "up/v1.avi" in log and "up/v0.avi" in log
    result = json.loads((folder / "result.json").read_text())
    assert (result["num_videos"], result["num_unreadable"]) == (9, 1)
    assert len((folder / "bad_videos.jsonl").read_text().splitlines()) == 2
    run(videos, tmp_path, "--strict", code=2)
    assert "v1.avi" in capsys.readouterr().err


def seeds_tree(root):
    """A corner of UCF-101 as the seed lays it out: two classes, videos and raw frames of each."""
    for label, name in ((0, "ApplyEyeMakeup"), (100, "YoYo")):
        for group, clip in ((1, 1), (2, 1), (8, 1), (9, 1), (9, 2)):
            stem = "v_%s_g%02d_c%02d" % (name, group, clip)
            videos, frames = (root / "data" / "ucf101" / kind / name for kind in ("videos", "rawframes"))
            videos.mkdir(parents=True, exist_ok=True)
            (frames / stem).mkdir(parents=True)
            write_video(videos / (stem + ".avi"), 10 * label + group + clip)
            film = cv2.VideoCapture(str(videos / (stem + ".avi")))
            for number in range(1, 21):
                cv2.imwrite(str(frames / stem / ("img_%05d.jpg" % number)), film.read()[1])


def test_ucf101_trains_from_videos_and_from_raw_frames(tmp_path):
    seeds_tree(tmp_path)
    for source in ("video", "rawframes"):
        folder = run(tmp_path, tmp_path / source, "--dataset", "UCF101", "--source", source, "--max-steps", "1",
                     "--no-precise-bn")
        result = json.loads((folder / "result.json").read_text())
        assert (result["num_videos"], len(result["class_names"])) == (4, 101)
        log = (folder / "train.log").read_text()
        assert "6 training and 4 test videos of 101 classes" in log and "13,310 of 13,320 videos are missing" in log
        assert list((folder / "checkpoints").iterdir())


def test_a_wrong_list_is_refused_with_its_line(tmp_path, capsys):
    seeds_tree(tmp_path)
    lists = tmp_path / "data" / "ucf101"
    (lists / "ucf101_train_split_1_videos.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 101\n")
    (lists / "ucf101_val_split_1_videos.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n")
    run(tmp_path, tmp_path, "--dataset", "UCF101", code=2)
    assert "ucf101_train_split_1_videos.txt:1" in capsys.readouterr().err
    (lists / "ucf101_train_split_1_videos.txt").write_text("ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 0\n")
    run(tmp_path, tmp_path, "--dataset", "UCF101", code=2)
    assert "ucf101_val_split_1_videos.txt:1" in capsys.readouterr().err


def test_profile_traces_some_steps_and_saves_nothing(tiny_videos, tmp_path, capfd):
    folder = run(tiny_videos, tmp_path, "--profile", "--batch-size", "2")
    trace = json.loads((folder / "trace.json").read_text())
    events = trace if isinstance(trace, list) else trace["traceEvents"]  # a bare list in the first versions
    assert any("convolution" in event["name"] for event in events)
    assert "convolution" in (folder / "train.log").read_text()
    assert not (folder / "model.pth").exists()


@pytest.mark.parametrize(
    "options, words",
    [(["--network", "NOPE"], "RESNET50_3D_GCN_X5"), (["--batch-size", "0"], "--batch-size"),
     (["--batch-size", "64"], "--batch-size"), (["--batchsize", "3"], "--batch-size"),
     (["--pretrained"], "network/pretrained"), (["--pretrained", "no.pth"], "no.pth"), (["--resume"], "no checkpoint"),
     (["--crop-size", "8"], "--crop-size"), (["--batch-size", "1", "--clip-length", "2"], "BatchNorm"),
     (["--eval-only"], "--pretrained"), (["--data-root", "nowhere"], "nowhere"), (["--dataset", "nope"], "motion10"),
     (["--device", "npu"], "--device npu"), (["--lr-steps", "1"], "--lr-steps"),
     (["--amp", "--amp-engine", "apex"], "--amp-engine apex"), (["--amp-dtype", "bf16"], "--amp-dtype bf16"),
     (["--world-size", "2"], "--distributed"), (["--split", "9"], "--split")],
)
def test_what_the_user_can_mend_ends_with_code_2_and_a_word(tiny_videos, tmp_path, capsys, options, words):
    run(tiny_videos, tmp_path, *options, code=2)
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_unreadable_weights_are_refused_by_name(tiny_videos, tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"not weights")
    run(tiny_videos, tmp_path, "--pretrained", str(tmp_path / "w.pth"), code=2)
    assert "w.pth" in capsys.readouterr().err


def test_a_full_disk_ends_with_code_2_and_keeps_what_was_there(tiny_videos, tmp_path, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("mount is not permitted here")
    try:
        (disk / "mine").write_text("kept")
        run(tiny_videos, disk, "--max-steps", "1", "--no-precise-bn", code=2)
        assert "no room" in capsys.readouterr().err
        assert (disk / "mine").read_text() == "kept"
        assert not list((disk / "t" / "checkpoints").iterdir())
    finally:
        subprocess.check_call(["umount", str(disk)])
