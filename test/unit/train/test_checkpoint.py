"""Checkpoints: whole or not at all, plain data only, the newest and the best kept, another run refused."""

import os
import pickle
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from network.safe_load import UnsafeFileError
from train.checkpoint import (
    CheckpointError,
    Checkpoints,
    check_same_run,
    load_checkpoint,
    load_optimizer_state,
    optimizer_state,
    save_tensors,
)

CONTENT = {"optimizer": {}, "config": {"network": "A"}, "class_names": ["x", "y"], "global_batch": 4, "scaler": {},
           "position": {"epoch": 1, "samples": 0, "step": 5}, "seconds": 1.0}
STATE = {"conv1.conv.weight": torch.arange(6.0).view(2, 3)}


def _save(checkpoints, epoch, best):
    return checkpoints.save(dict(CONTENT, epoch=epoch, best={"epoch": best, "accuracy": 0.5}), STATE)


def test_the_newest_three_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", "t.1", keep=3)
    for epoch in range(1, 8):
        _save(checkpoints, epoch, best=min(epoch, 2))
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["t.1_ep-%04d.pth" % e for e in (2, 5, 6, 7)]
    assert checkpoints.find(True) == checkpoints.path(7)
    assert checkpoints.find("epoch:2") == checkpoints.path(2)


def test_what_was_saved_comes_back_and_others_can_open_it(tmp_path):
    path = _save(Checkpoints(tmp_path, "t"), 3, 3)
    content = load_checkpoint(path)
    assert content["epoch"] == 3 and torch.equal(content["state_dict"]["conv1.conv.weight"], STATE["conv1.conv.weight"])
    plain = torch.load(str(path))  # as the original opens it: `epoch`, and keys with its `module.`
    assert plain["epoch"] == 3 and list(plain["state_dict"]) == ["module.conv1.conv.weight"]


def test_a_missing_one_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none", "t")
    for wanted in (True, "epoch:3", str(tmp_path / "no.pth")):
        with pytest.raises(CheckpointError, match="--resume"):
            checkpoints.find(wanted)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = _save(Checkpoints(tmp_path, "t"), 1, 1)
    before = path.read_bytes()

    def fail(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no room"):
        save_tensors({"a": torch.zeros(3)}, path)
    assert path.read_bytes() == before and os.listdir(str(tmp_path)) == [path.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system needs root")
def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.call(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip("mount is not permitted here")
    try:
        checkpoints = Checkpoints(disk, "t")
        old = _save(checkpoints, 1, 1)
        big = dict(CONTENT, epoch=2, best={"epoch": 1, "accuracy": 0.5}, more=torch.zeros(5000000))
        with pytest.raises(OSError, match="--model-dir"):
            checkpoints.save(big, STATE)
        assert [p.name for p in disk.iterdir()] == [old.name]
        assert load_checkpoint(old)["epoch"] == 1
    finally:
        subprocess.check_call(["umount", str(disk)])


_SAVES_BEYOND_A_LIMIT = """
import resource, sys, torch
from pathlib import Path
from train.checkpoint import save_tensors
path = Path(sys.argv[1])
save_tensors({"a": torch.ones(3)}, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))
try:
    save_tensors({"a": torch.zeros(1000000)}, path)
except OSError as error:
    print(error)
"""


def test_no_room_is_an_error_and_never_the_end_of_the_process(tmp_path):
    """Given the path or the file itself, torch.save of PyTorch 1.8 aborts Python where the disk is full."""
    path = tmp_path / "c.pth"
    done = subprocess.run([sys.executable, "-c", _SAVES_BEYOND_A_LIMIT, str(path)], cwd=str(ROOT),
                          stdout=subprocess.PIPE, universal_newlines=True)
    assert done.returncode == 0 and "no room" in done.stdout
    assert os.listdir(str(tmp_path)) == ["c.pth"] and torch.equal(torch.load(str(path))["a"], torch.ones(3))


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_code_in_a_checkpoint_does_not_run(tmp_path):
    for name, save in (("new", torch.save), ("pickle", lambda obj, path: open(path, "wb").write(pickle.dumps(obj)))):
        path, trace = tmp_path / (name + ".pth"), tmp_path / (name + ".ran")
        save({"schema": 1, "state_dict": {}, "x": _Evil(str(trace))}, str(path))
        with pytest.raises(UnsafeFileError):
            load_checkpoint(path)
        assert not trace.exists()


def test_a_plain_weight_file_is_no_checkpoint(tmp_path):
    torch.save(STATE, str(tmp_path / "w.pth"))
    with pytest.raises(CheckpointError, match="--pretrained"):
        load_checkpoint(tmp_path / "w.pth")


def test_a_checkpoint_without_a_part_is_refused_by_the_parts_name(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t")
    content = {name: value for name, value in CONTENT.items() if name != "optimizer"}
    path = checkpoints.save(dict(content, epoch=1, best={"epoch": 1, "accuracy": 0.5}), STATE)
    with pytest.raises(CheckpointError, match="lacks optimizer"):
        load_checkpoint(path)


def test_another_run_is_refused_with_each_difference(tmp_path):
    content = dict(CONTENT, config={"network": "A", "random_seed": 1})
    check_same_run(content, {"network": "A", "global_batch": 4, "class_names": ["x", "y"]}, tmp_path)
    with pytest.raises(CheckpointError, match="network was A, is B; global_batch was 4, is 8"):
        check_same_run(content, {"network": "B", "global_batch": 8, "random_seed": 1}, tmp_path)


def test_another_order_of_the_clips_is_another_run(tmp_path):
    old, windowed = dict(CONTENT, config={}), dict(CONTENT, config={"shuffle_window": 9})
    check_same_run(old, {"shuffle_window": 0}, tmp_path)
    check_same_run(windowed, {"shuffle_window": 9}, tmp_path)
    for content, window in ((old, 9), (windowed, 0), (windowed, 8)):
        with pytest.raises(CheckpointError, match="shuffle_window was"):
            check_same_run(content, {"shuffle_window": window}, tmp_path)


def test_another_modality_is_another_run_and_older_files_are_rgb(tmp_path):
    old, flow = dict(CONTENT, config={}), dict(CONTENT, config={"modality": "flow"})
    check_same_run(old, {"modality": "rgb"}, tmp_path)
    check_same_run(flow, {"modality": "flow"}, tmp_path)
    for content, modality in ((old, "flow"), (flow, "rgb")):
        with pytest.raises(CheckpointError, match="modality was .*, is %s" % modality):
            check_same_run(content, {"modality": modality}, tmp_path)


def test_momentum_is_kept_by_name():
    def optimizer(names):
        parameters = {n: torch.nn.Parameter(torch.ones(2) * i) for i, n in enumerate(sorted(names))}
        return torch.optim.SGD([{"params": [parameters[n] for n in names], "names": names}], lr=0.1, momentum=0.9)

    one, other = optimizer(["a", "b"]), optimizer(["b", "a"])
    for i, parameter in enumerate(one.param_groups[0]["params"]):
        parameter.grad = torch.full((2,), i + 1.0)
    one.step()
    load_optimizer_state(other, optimizer_state(one))
    assert {n: float(v[0]) for n, v in optimizer_state(other).items()} == {"a": 1.0, "b": 2.0}
    assert optimizer_state(optimizer(["a"])) == {}
