"""tools.evaluate: the trainer's own counts, on any number of processes; views, broken videos, fusion, words."""
import json
import os
import shutil

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from conftest import SMALL_CLIPS
from small_network import small_network

import train_model
from data.clip_dataset import ClipDataset
from data.device_transforms import normalize
from data.transforms import EvalTransform
from tools import evaluate
from tools.scores import read_scores
from train import distributed
from train.launch import free_port


@pytest.fixture(scope="module")
def run(tiny_videos, tmp_path_factory):
    """A finished run of the small network, with averaged weights; one test video of nine is broken."""
    root = tmp_path_factory.mktemp("data") / "videos"
    shutil.copytree(str(tiny_videos), str(root))
    (root / "test" / "up" / "v1.avi").write_bytes(bytes(3000))
    out = tmp_path_factory.mktemp("run")
    options = SMALL_CLIPS + ["--network", "RESNET50_3D", "--data-root", str(root), "--model-dir", str(out)] + (
        "--batch-size 6 --workers 0 --device cpu --lr-base 0.05 --warmup-steps 1 --end-epoch 1 --task-name t "
        "--eval-batch-size 4 --bad-video-budget 0.5 --no-precise-bn --ema-decay 0.5").split()
    with small_network():
        assert train_model.main(options) == 0
        yield out / "t"


def evaluated(checkpoint, tmp_path, *options):
    path = tmp_path / "report.json"
    assert evaluate.main([str(checkpoint), "--json", str(path), "--device", "cpu", "--workers", "0", *options]) == 0
    return json.loads(path.read_text())


def test_one_centre_clip_gives_the_trainers_own_counts(run, tmp_path, capsys):
    result = json.loads((run / "result.json").read_text())
    for checkpoint in (run / "model.pth", run / "checkpoints" / "t_ep-0001.pth"):
        report = evaluated(checkpoint, tmp_path)
        assert (report["num_videos"], report["num_unreadable"]) == (9, 1)
        assert report["hits_top1"] == round(result["accuracy_top1"] * 9 / 100)
        for mine, theirs in (("top1", "accuracy_top1"), ("top5", "accuracy_top5"), ("clip_top1", "accuracy_top1")):
            assert report[mine] == pytest.approx(result[theirs], abs=1e-12)
        assert report["clip_loss"] == result["loss"] and report["protocol"] == result["protocol"]
        assert report["unreadable"][0]["path"].endswith("up/v1.avi") and report["dataset"] == "folder"
    said = capsys.readouterr().out
    assert "up/v1.avi: not a video file" in said and "protocol: one centre clip" in said


def by_hand(run, clips, crops, flips):
    """Mean probabilities of each test video (9, 3), by a plain loop."""
    trained = evaluate.open_trained(str(run / "model.pth"), "cpu")
    videos = evaluate.find_data(evaluate.parse([str(run / "model.pth")]), trained).videos.test
    dataset = ClipDataset(videos, 4, 3, EvalTransform(32, 37, crops, flips), 0, False).with_clips(clips)
    rows = []
    for row in range(len(videos)):
        samples = [dataset[(0, row * clips + clip)] for clip in range(clips)]
        windows = np.concatenate([sample.clip.reshape(-1, 4, 32, 32, 3) for sample in samples])
        with torch.no_grad():
            logits = trained.network(normalize(torch.from_numpy(windows).permute(0, 4, 1, 2, 3)))
        rows.append(logits.double().softmax(1).mean(0).numpy() if all(s.readable for s in samples) else np.zeros(3))
    return np.stack(rows)


def test_views_are_averaged(run, tmp_path, capsys):
    scores = str(tmp_path / "s.npz")
    report = evaluated(run / "model.pth", tmp_path, "--views", "2x2", "--flips", "--scores", scores, "--batch-size",
                       "3", "--confusion", str(tmp_path / "c.csv"))
    expected = by_hand(run, 2, 2, True)
    found = read_scores(scores)
    assert np.abs(found.scores - expected).max() < 1e-5
    assert found.paths[0] == "down/v0.avi" and found.labels.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    hits = [label == row.argmax() and row.any() for label, row in zip(found.labels, expected)]
    assert report["hits_top1"] == sum(hits) and report["views"] == "2x2 and mirrored"
    assert np.sum(report["confusion_matrix"]) == 8 and (tmp_path / "c.csv").is_file()
    assert "on 72 windows" in capsys.readouterr().out


def _process(rank, world, run, out):
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world), MASTER_ADDR="127.0.0.1",
                      MASTER_PORT="29511")
    distributed_start = distributed.start

    def start(ranks, backend, url, *more):
        distributed_start(ranks, backend, "file://%s/meet" % out, *more)

    distributed.start = start
    code = evaluate.main([run, "--json", out + "/all.json", "--scores", out + "/all.npz", "--views", "2x1", "--device",
                          "cpu", "--workers", "0"])
    os._exit(code)


def test_two_processes_count_as_one(run, tmp_path):
    one = evaluated(run / "model.pth", tmp_path, "--views", "2x1", "--scores", str(tmp_path / "one.npz"))
    mp.start_processes(_process, args=(2, str(run / "model.pth"), str(tmp_path)), nprocs=2, start_method="fork")
    both = json.loads((tmp_path / "all.json").read_text())
    assert both["world_size"] == 2 and one["world_size"] == 1
    for key in ("hits_top1", "hits_top5", "num_videos", "confusion_matrix", "unreadable", "num_clips", "clip_top1"):
        assert both[key] == one[key], key
    assert np.abs(read_scores(str(tmp_path / "all.npz")).scores
                  - read_scores(str(tmp_path / "one.npz")).scores).max() < 1e-6


def test_a_process_that_nobody_joins_ends_with_a_word(run, monkeypatch, capsys):
    alone = dict(RANK=0, LOCAL_RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port())
    for name, value in alone.items():
        monkeypatch.setenv(name, str(value))
    assert evaluate.main([str(run / "model.pth"), "--device", "cpu", "--dist-timeout", "1"]) == 2
    assert "rank 0 of 2 did not meet the others within --dist-timeout 1 seconds" in capsys.readouterr().err


def test_json_on_standard_output_has_it_to_itself(run, capsys):
    assert evaluate.main([str(run / "model.pth"), "--json", "-", "--device", "cpu", "--workers", "0"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["num_videos"] == 9 and "protocol: one centre clip" in said.err


def test_late_fusion_of_two_files(run, tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    evaluated(run / "model.pth", tmp_path, "--scores", files[0])
    evaluated(run / "model.pth", tmp_path, "--scores", files[1], "--views", "1x2")
    capsys.readouterr()
    report = tmp_path / "fused.json"
    assert evaluate.main(["--fuse", *files, "--weights", "1,3", "--json", str(report), "--scores",
                          str(tmp_path / "c.npz")]) == 0
    found = json.loads(report.read_text())
    assert found["num_videos"] == 9 and "late fusion" in found["protocol"] and found["weights"] == [1, 3]
    one, two, both = (read_scores(path).scores for path in files + [str(tmp_path / "c.npz")])
    assert np.abs(both - (one + 3 * two) / 4).max() < 1e-6
    options = evaluate.parse(["--fuse", *files, "--scores", str(tmp_path / "d.npz")])
    assert evaluate.late_fusion(options, writes=False)["num_videos"] == 9 and not (tmp_path / "d.npz").exists()


def test_the_references_protocol_says_what_it_may_stand_beside(run, tmp_path, capsys):
    report = evaluated(run / "model.pth", tmp_path, "--protocol", "reference")
    assert report["protocol"].startswith("reference: one centre clip")
    assert "data set is folder, not UCF101" in report["differences_from_published"]
    assert "not comparable with the published 92.39 %" in capsys.readouterr().out


@pytest.mark.parametrize("options, words", [
    ([], "CHECKPOINT"), (["{run}/model.pth", "--fuse", "a.npz"], "one of the two"), (["nowhere.pth"], "nowhere.pth"),
    (["{run}/model.pth", "--protocol", "reference", "--flips"], "--protocol"),
    (["{run}/model.pth", "--json", "/nowhere/a.json"], "--json"), (["--fuse", "none.npz"], "none.npz"),
    (["{run}/model.pth", "--dataset", "x"], "--dataset x"), (["--fuse", "none.npz", "--weights", "a"], "--weights a"),
    (["{run}/model.pth", "--dataset", "motion10"], "--dataset motion10 has 10"),
    (["{run}/model.pth", "--batch-size", "-1"], "--batch-size"), (["{run}/model.pth", "--split", "0"], "--split 0"),
    (["--fuse", "none.npz", "--views", "2x1"], "--views says how"),
    (["--fuse", "none.npz", "--protocol", "reference"], "--protocol says how"),
    (["{run}/model.pth", "--weights", "1"], "--weights 1"),
    (["{run}/model.pth", "--classes", "nothing"], "--classes nothing"), (["{run}/t.txt"], "t.txt"),
    (["{run}/model.pth", "--amp-dtype", "bf16"], "--amp-dtype bf16"),
    (["{run}/model.pth", "--dist-timeout", "0"], "--dist-timeout 0")])
def test_what_the_user_can_mend_ends_with_code_2_and_a_word(options, words, run, capsys):
    (run / "t.txt").write_text("text")
    assert evaluate.main([word.format(run=run) for word in options]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_checkpoint_whose_bytes_have_changed_is_refused(run, tmp_path, capsys):
    data = bytearray((run / "checkpoints" / "t_ep-0001.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bent.pth").write_bytes(bytes(data))
    assert evaluate.main([str(tmp_path / "bent.pth")]) == 2
    assert "bent.pth is damaged" in capsys.readouterr().err


def test_other_classes_are_refused(run, tmp_path, capsys):
    (tmp_path / "names.txt").write_text("down\nright\nup\n")
    assert evaluate.main([str(run / "model.pth"), "--classes", str(tmp_path / "names.txt")]) == 2
    assert "its class left is right" in capsys.readouterr().err
