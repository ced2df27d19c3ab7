"""Checkpoints: whole or not at all, plain data only, the newest and the best kept, another run refused."""

import builtins
import logging
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from network.safe_load import UnsafeFileError
from train import files
from train.checkpoint import (
    CheckpointError,
    Checkpoints,
    Saved,
    check_same_run,
    load_checkpoint,
    load_optimizer_state,
    optimizer_state,
)
from train.files import save_tensors

CONTENT = {"optimizer": {}, "config": {"network": "A"}, "class_names": ["x", "y"], "global_batch": 4, "scaler": {},
           "position": {"epoch": 1, "samples": 0, "step": 5}, "seconds": 1.0}
STATE = {"conv1.conv.weight": torch.arange(6.0).view(2, 3)}


def _save(checkpoints, epoch, best):
    return checkpoints.save(dict(CONTENT, epoch=epoch, best={"epoch": best, "accuracy": 0.5}), STATE)


def _save_step(checkpoints, step, best=0):
    position = {"epoch": 1, "samples": 4, "step": step}
    return checkpoints.save(dict(CONTENT, epoch=1, position=position, evaluated=False,
                                 best={"epoch": best, "accuracy": 0.5}), STATE)


def test_the_newest_three_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", "t.1", keep=3)
    for epoch in range(1, 8):
        _save(checkpoints, epoch, best=min(epoch, 2))
    files = ["t.1_ep-%04d.pth" % e for e in (2, 5, 6, 7)]
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["newest"] + files
    assert (tmp_path / "c" / "newest").read_text().split() == files[:0:-1] + files[:1]
    assert checkpoints.load(True).path == checkpoints.path(7)
    assert checkpoints.load("epoch:2").path == checkpoints.path(2)


def test_those_within_an_epoch_count_among_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t", keep=2)
    _save(checkpoints, 1, best=1)
    for step in (7, 9, 11):
        _save_step(checkpoints, step, best=1)
    names = ["t_step-00000011.pth", "t_step-00000009.pth", "t_ep-0001.pth"]
    assert [p.name for p in checkpoints.newest_first()] == names
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names + ["newest"])
    _save(checkpoints, 2, best=2)
    assert [p.name for p in checkpoints.newest_first()] == ["t_ep-0002.pth", "t_step-00000011.pth"]


def test_without_the_list_of_the_newest_epochs_come_first(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t", keep=9)
    for epoch in (9, 10000, 10):
        _save(checkpoints, epoch, best=1)
    _save_step(checkpoints, 8)
    (tmp_path / "newest").unlink()
    assert [p.name for p in checkpoints.newest_first()] == [
        "t_ep-10000.pth", "t_ep-0010.pth", "t_ep-0009.pth", "t_step-00000008.pth"]


def _broken(data, number, rng):
    """The bytes with one bit flipped, or one byte left out: the last one, or any."""
    data, place = bytearray(data), rng.randrange(len(data))
    if number % 2:
        data[place] ^= 1 << rng.randrange(8)
    else:
        del data[-1 if number % 10 == 0 else place]
    return bytes(data)


@pytest.mark.parametrize("new_format", [True, False])
def test_one_flipped_bit_or_cut_byte_is_refused_by_name_and_the_one_before_is_taken(tmp_path, monkeypatch, caplog,
                                                                                     new_format):
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda content, file: save(
        content, file, _use_new_zipfile_serialization=new_format))
    checkpoints = Checkpoints(tmp_path, "t")
    before, newest = _save(checkpoints, 1, 1), _save(checkpoints, 2, 1)
    whole, rng = newest.read_bytes(), random.Random(3)
    assert checkpoints.load(True).path == newest
    monkeypatch.setattr(logging.getLogger("glore"), "propagate", True)
    for number in range(100):
        newest.write_bytes(_broken(whole, number, rng))
        caplog.clear()
        assert checkpoints.load(True).path == before, number
        assert "refused: " in caplog.text and newest.name in caplog.text and "instead: %s" % before in caplog.text
        with pytest.raises(ValueError, match=newest.name):
            checkpoints.load(str(newest))
    before.write_bytes(whole[:100])
    with pytest.raises(CheckpointError, match="t_ep-0002.pth.*t_ep-0001.pth"):
        checkpoints.load(True)


class _Pieces:
    """A file that writes some bytes at a time, each a moment at which a process may die."""

    def __init__(self, file, moment):
        self.file, self.moment = file, moment

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        size = max(8, len(data) // 50)
        for start in range(0, len(data), size):
            self.file.write(data[start:start + size])
            self.file.flush()
            self.moment()


def _save_and_die(folder, at):
    """In a forked process: saves step 9, and is killed at the moment of that number. Its status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    seen = []

    def moment(*_):
        seen.append(1)
        if len(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def noted(inner):
        return lambda *args: (moment(), inner(*args), moment())[1]

    try:
        files.open = lambda *args: _Pieces(builtins.open(*args), moment)
        os.fsync, os.replace, Path.unlink = noted(os.fsync), noted(os.replace), noted(Path.unlink)
        _save_step(Checkpoints(folder, "t", keep=2), 9, best=1)
        moment()
    finally:
        os._exit(len(seen))


def test_killed_at_any_moment_of_a_save_the_newest_or_the_one_before_loads(tmp_path):
    start = tmp_path / "start"
    checkpoints = Checkpoints(start, "t", keep=2)
    _save(checkpoints, 1, best=1)
    for step in (5, 7):
        _save_step(checkpoints, step, best=1)
    shutil.copytree(str(start), str(tmp_path / "all"))
    moments = os.WEXITSTATUS(_save_and_die(tmp_path / "all", 0))
    assert 50 <= moments <= 250
    found = []
    for at in range(1, moments + 1, max(1, moments // 60)):
        folder = tmp_path / ("at-%d" % at)
        shutil.copytree(str(start), str(folder))
        assert os.WTERMSIG(_save_and_die(folder, at)) == signal.SIGKILL
        checkpoints = Checkpoints(folder, "t", keep=2)
        found.append(checkpoints.load(True).content["position"]["step"])
        checkpoints.clean()
        assert not list(folder.glob(".*")) and checkpoints.load("epoch:1")
        _save_step(checkpoints, 11, best=1)
        assert len(list(folder.iterdir())) == 4  # two, the best, and their list
    assert len(found) >= 50 and set(found) == {7, 9} and found == sorted(found)


def test_what_was_saved_comes_back_and_others_can_open_it(tmp_path):
    path = _save(Checkpoints(tmp_path, "t"), 3, 3)
    content = load_checkpoint(path).content
    assert content["epoch"] == 3 and torch.equal(content["state_dict"]["conv1.conv.weight"], STATE["conv1.conv.weight"])
    plain = torch.load(str(path))  # as the original opens it: `epoch`, and keys with its `module.`
    assert plain["epoch"] == 3 and list(plain["state_dict"]) == ["module.conv1.conv.weight"]


def test_a_missing_one_is_named(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none", "t")
    for wanted in (True, "epoch:3", str(tmp_path / "no.pth")):
        with pytest.raises(CheckpointError, match="--resume"):
            checkpoints.load(wanted)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = _save(Checkpoints(tmp_path, "t"), 1, 1)
    before = path.read_bytes()

    def fail(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no room"):
        save_tensors({"a": torch.zeros(3)}, path)
    assert path.read_bytes() == before and sorted(os.listdir(str(tmp_path))) == ["newest", path.name]


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
        assert sorted(p.name for p in disk.iterdir()) == ["newest", old.name]
        assert load_checkpoint(old).content["epoch"] == 1
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


def test_another_run_is_refused_with_each_difference():
    saved = Saved(Path("c.pth"), dict(CONTENT, config={"network": "A", "random_seed": 1}, train_list="a" * 64))
    check_same_run(saved, {"network": "A", "global_batch": 4, "class_names": ["x", "y"], "unheard_of": 1})
    other = {"network": "B", "global_batch": 8, "random_seed": 1, "train_list": "b" * 64}
    with pytest.raises(CheckpointError, match="network was A, is B; global_batch was 4, is 8; train_list was "
                                              "a{12}, is b{12}.*--allow-change network,global_batch,train_list"):
        check_same_run(saved, other)


def test_a_difference_that_is_allowed_is_said(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("glore"), "propagate", True)
    saved = Saved(Path("c.pth"), dict(CONTENT, config={"mixup": 0.5}))
    check_same_run(saved, {"mixup": 0.1, "global_batch": 8}, ("mixup", "global_batch"))
    assert "mixup was 0.5, is 0.1" in caplog.text and "global_batch was 4, is 8" in caplog.text
    with pytest.raises(CheckpointError, match="global_batch was 4, is 8.*--allow-change global_batch,mixup"):
        check_same_run(saved, {"mixup": 0.1, "global_batch": 8}, ("mixup",))
    with pytest.raises(CheckpointError, match="--allow-change mixxup.*global_batch,mixup"):
        check_same_run(saved, {"mixup": 0.1, "global_batch": 8}, ("mixxup",))


def test_another_order_of_the_clips_is_another_run():
    old, windowed = dict(CONTENT, config={}), dict(CONTENT, config={"shuffle_window": 9})
    check_same_run(Saved(Path("c"), old), {"shuffle_window": 0})
    check_same_run(Saved(Path("c"), windowed), {"shuffle_window": 9})
    for content, window in ((old, 9), (windowed, 0), (windowed, 8)):
        with pytest.raises(CheckpointError, match="shuffle_window was"):
            check_same_run(Saved(Path("c"), content), {"shuffle_window": window})


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
