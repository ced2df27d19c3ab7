"""What a resumed run takes over, what it must meet again, and what happens when a checkpoint cannot be written."""

import dataclasses
import errno
import json
import logging
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import toy_run

from train.background import Background
from train.checkpoint import CheckpointError, Checkpoints, Saved, load_checkpoint
from train.config import TrainConfig
from train.run_state import SAME, keep_global_batch
from train.stopping import SIGNALS, Stopped, StopRequest

SHORT = {"end_epoch": 1, "precise_bn": False, "log_samples": False}


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A run of one epoch, six steps, saved every two."""
    folder = tmp_path_factory.mktemp("short")
    toy_run.run(folder, **SHORT)
    return folder


def test_a_checkpoint_within_an_epoch_holds_everything(short):
    content = torch.load(str(short / "checkpoints" / "t_step-00000004.pth"))
    wanted = ("schema sealed epoch state_dict optimizer scaler position evaluated metrics random bad_steps "
              "global_batch schedule best class_names train_list test_list config versions seconds")
    assert set(wanted.split()) <= set(content) and "buffers" not in content
    assert content["position"] == {"epoch": 0, "samples": 16, "step": 4} and content["evaluated"] is False
    assert content["metrics"][4] == 16 and set(content["versions"]) == {"torch", "python"}
    assert content["schedule"] == {"base": 0.05, "warmup_steps": 4, "boundaries": [], "factor": 0.1}


def test_a_run_that_ends_within_an_epoch_keeps_what_training_goes_on_with(short, tmp_path):
    job = toy_run.run(tmp_path, **dict(SHORT, precise_bn=True), last_step=3)
    content = torch.load(str(tmp_path / "checkpoints" / "t_ep-0000.pth"))
    assert content["evaluated"] and content["buffers"].shape == (1, 8)
    now = torch.cat([content["state_dict"]["module.1." + name] for name in ("running_mean", "running_var")])
    assert not torch.allclose(content["buffers"][0], now)
    resumed = toy_run.ToyJob(tmp_path, dataclasses.replace(toy_run.CONFIG, resume=True, **{
        name: value for name, value in SHORT.items() if name != "log_samples"}, allow_change=("precise_bn",)))
    assert torch.equal(resumed.trainer.module[1].running_var, job.trainer.module[1].running_var)
    resumed.state.train_on(resumed.saved)
    assert torch.equal(resumed.trainer.module[1].running_mean, content["buffers"][0, :4])


def test_a_checkpoint_of_an_earlier_version_goes_on(short, tmp_path):
    content = torch.load(str(short / "checkpoints" / "t_step-00000004.pth"))
    for name in ("sealed", "evaluated", "metrics", "random", "bad_steps", "train_list", "test_list"):
        del content[name]
    for name in ("clip_grad_norm", "accumulate", "save_every"):
        del content["config"][name]
    torch.save(content, str(tmp_path / "old.pth"))
    folder = tmp_path / "run"
    toy_run.run(folder, resume=str(tmp_path / "old.pth"), **SHORT)
    assert toy_run.same(folder / "model.pth", short / "model.pth")


@pytest.mark.parametrize("change, words", [
    ({"lists": ("c", "b")}, "train_list was aaaaaaaaaaaa, is cccccccccccc"),
    ({"lists": ("a", "c")}, "test_list was"), ({"mixup": 0.2}, "mixup was 0.0, is 0.2"),
    ({"weight_decay": 0.5}, "weight_decay was 0.0001, is 0.5"),
    ({"batch_size": 2}, "batch_size was 4, is 2; global_batch was 4, is 2"),
    ({"batch_size": 2, "accumulate": 2}, "batch_size was 4, is 2"),
    ({"lr_base": 0.1}, "schedule was .*'base': 0.05.*, is .*'base': 0.1"), ({"random_seed": 3}, "random_seed was 1")])
def test_what_has_changed_is_refused_unless_it_may(short, change, words):
    options = dict(SHORT, **change)
    options.pop("log_samples")
    lists = options.pop("lists", ("a", "b"))
    with pytest.raises(CheckpointError, match=words):
        toy_run.ToyJob(short, dataclasses.replace(toy_run.CONFIG, resume=True, **options), lists=lists)
    allowed = tuple(re.findall(r"(\w+) was", words))
    config = dataclasses.replace(toy_run.CONFIG, resume=True, allow_change=allowed, **options)
    assert toy_run.ToyJob(short, config, lists=lists).position.step == 6


# Options that are compared by what they make, and those that a resumed run may change, each with the reason.
BY_WHAT_THEY_MAKE = {
    "network": "network", "modality": "modality", "ema_decay": "ema_decay, where both have an average",
    "accumulate": "global_batch", "lr_base": "schedule", "scale_lr": "schedule", "lr_steps": "schedule",
    "lr_factor": "schedule", "warmup_steps": "schedule"}
FREE = {
    "the weights are the checkpoint's": ("pretrained",),
    "asks for the resume, or for something else than training": (
        "resume", "allow_change", "eval_only", "describe", "dry_run", "profile"),
    "where the same rows lie; the lists are compared": ("data_root", "source"),
    "a name for values that are compared each for itself": ("recipe",),
    "when a run ends, not what its steps do; shares of its length are compared in schedule": (
        "end_epoch", "max_steps", "bad_video_budget", "strict", "max_bad_steps"),
    "the arithmetic, as docs/PARITY.md says: weights are kept in fp32": (
        "amp", "opt_level", "loss_scale", "amp_dtype", "amp_engine", "execution", "cuda_graphs",
        "activation_checkpointing", "deterministic"),
    "the machine: a resumed run may meet another": (
        "device", "workers", "distributed", "backend", "dist_url", "dist_timeout", "world_size", "local_rank",
        "eval_batch_size"),
    "where results go and how often": (
        "task_name", "model_dir", "log_file", "save_frequency", "save_every", "keep", "log_samples")}


def test_every_option_is_compared_at_a_resume_or_free_for_a_reason():
    listed = [*SAME, *BY_WHAT_THEY_MAKE, *(name for names in FREE.values() for name in names)]
    assert sorted(listed) == sorted(row.name for row in dataclasses.fields(TrainConfig))


OTHERS = {str: "other", int: 7, float: 0.9}


@pytest.mark.parametrize("name", [name for name in SAME if name != "batch_size"])
def test_each_compared_option_is_refused_by_its_name(short, name):
    options = {key: value for key, value in SHORT.items() if key != "log_samples"}
    config = dataclasses.replace(toy_run.CONFIG, resume=True, **options)
    before = getattr(config, name)
    value = not before if isinstance(before, bool) else OTHERS[type(before)]
    config = dataclasses.replace(config, **{name: value})
    with pytest.raises(CheckpointError, match=r": %s was \S+, is %s\. Give it" % (name, value)):
        toy_run.ToyJob(short, config)


def test_another_decay_is_refused_where_there_is_an_average(short, tmp_path):
    content = torch.load(str(short / "checkpoints" / "t_step-00000004.pth"))
    content["config"]["ema_decay"], content["ema"] = 0.9, {"decay": 0.9, "steps": 4, "weights": {}}
    torch.save(dict(content, sealed=False), str(tmp_path / "averaged.pth"))
    options = dict(SHORT, ema_decay=0.8, resume=str(tmp_path / "averaged.pth"))
    with pytest.raises(CheckpointError, match="ema_decay was 0.9, is 0.8"):
        toy_run.run(tmp_path / "run", **options)


def _saved(global_batch, batch_size):
    return Saved(Path("c.pth"), {"global_batch": global_batch, "config": {"batch_size": batch_size}})


def test_processes_take_turns_where_there_are_fewer():
    config = TrainConfig(batch_size=4)
    for world, accumulate in ((8, 1), (4, 2), (2, 4), (1, 8)):
        assert keep_global_batch(config, _saved(32, 4), world).accumulate == accumulate
    assert keep_global_batch(dataclasses.replace(config, accumulate=4), _saved(32, 4), 8).accumulate == 1


def test_numbers_of_processes_that_do_not_fit_are_told_those_that_do():
    config = TrainConfig(batch_size=4)
    with pytest.raises(CheckpointError, match="start 1 or 2 or 4 or 8 of them$"):
        keep_global_batch(config, _saved(32, 4), 3)
    with pytest.raises(CheckpointError, match="start 1 of them, or give --batch-size 1 --allow-change batch_size$"):
        keep_global_batch(config, _saved(4, 4), 4)
    for other in (dataclasses.replace(config, batch_size=8), dataclasses.replace(config, eval_only=True),
                  dataclasses.replace(config, allow_change=("global_batch",))):
        assert keep_global_batch(other, _saved(32, 4), 3) is other


def _failing(monkeypatch, fails):
    """Lets those saves fail whose number, counted from 1, `fails` says."""
    save, seen = Checkpoints.save, []

    def counted(self, content, state_dict):
        seen.append(1)
        if fails(len(seen)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), "c.pth")
        return save(self, content, state_dict)
    monkeypatch.setattr(Checkpoints, "save", counted)


def test_a_checkpoint_that_is_written_beside_the_steps_is_that_of_its_step(tmp_path, monkeypatch, short):
    save, steps = Checkpoints.save, []

    def late(self, content, state_dict):
        time.sleep(0.1)
        steps.append(job.position.step - content["position"]["step"])
        return save(self, content, state_dict)
    monkeypatch.setattr(Checkpoints, "save", late)
    options = {name: value for name, value in SHORT.items() if name != "log_samples"}
    job = toy_run.ToyJob(tmp_path, dataclasses.replace(toy_run.CONFIG, **options), log_samples=False, beside=True)
    job.execute()
    assert max(steps) > 0  # training went on meanwhile
    for path in (short / "checkpoints").glob("*.pth"):
        assert toy_run.same(path, tmp_path / "checkpoints" / path.name), path.name
    assert toy_run.same(short / "model.pth", tmp_path / "model.pth")


@pytest.mark.parametrize("beside", [False, True])
def test_a_save_that_fails_on_the_way_does_not_stop_the_run(tmp_path, monkeypatch, caplog, short, beside):
    monkeypatch.setattr(logging.getLogger("glore"), "propagate", True)
    _failing(monkeypatch, lambda number: number < 4)
    toy_run.run(tmp_path, beside=beside, **SHORT)
    told = {id(record): record.getMessage() for record in caplog.records}     # a record may pass several handlers
    failed = [text for text in told.values() if "not saved, older checkpoints are untouched" in text]
    assert len(failed) == 3 and all("Read-only" in text for text in failed)
    assert toy_run.same(tmp_path / "model.pth", short / "model.pth")


@pytest.mark.parametrize("beside", [False, True])
def test_the_last_save_that_fails_is_an_error_after_all_else_is_written(tmp_path, monkeypatch, beside):
    _failing(monkeypatch, lambda number: number == 4)
    with pytest.raises(OSError, match="Read-only"):
        toy_run.run(tmp_path, beside=beside, **SHORT)
    assert (tmp_path / "model.pth").exists() and json.loads((tmp_path / "result.json").read_text())["steps"] == 6
    assert load_checkpoint(tmp_path / "checkpoints" / "t_step-00000006.pth").content["position"]["step"] == 6


def _ask_at(monkeypatch, call):
    clips, seen = toy_run.clips, []

    def counted(ids):
        seen.append(1)
        if len(seen) == call:
            os.kill(os.getpid(), signal.SIGUSR1)
        return clips(ids)
    monkeypatch.setattr(toy_run, "clips", counted)


def test_asked_to_stop_a_run_saves_and_says_how_to_go_on(tmp_path, monkeypatch, short):
    before = [signal.getsignal(number) for number in SIGNALS]
    _ask_at(monkeypatch, 5)
    with pytest.raises(Stopped, match="stopped by SIGUSR1 after step 5, saved .*t_step-00000005.pth; .*--resume"):
        toy_run.run(tmp_path, **SHORT)
    assert [signal.getsignal(number) for number in SIGNALS] == before
    toy_run.run(tmp_path, resume=True, **SHORT)
    assert toy_run.same(tmp_path / "model.pth", short / "model.pth")


@pytest.mark.parametrize("beside", [False, True])
def test_asked_to_stop_without_room_to_save_is_an_error(tmp_path, monkeypatch, beside):
    _ask_at(monkeypatch, 4)
    _failing(monkeypatch, lambda number: number > 1)
    with pytest.raises(OSError, match="Read-only"):
        toy_run.run(tmp_path, beside=beside, **SHORT)


def test_what_goes_wrong_beside_the_steps_is_raised_where_it_is_waited_for():
    background, done = Background(), []
    background.start(lambda: done.append(1))
    background.start(lambda: 1 // 0)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.wait()


def test_agreements_come_seconds_apart_and_at_least_every_fifty_calls(monkeypatch):
    now, sums = [0.0], []
    monkeypatch.setattr("train.stopping.in_group", lambda: True)
    monkeypatch.setattr("train.stopping.all_reduce_sum", lambda word: sums.append(now[0]) or 2 * word)
    stop = StopRequest(toy_run.CPU, lambda: now[0])
    for seconds, calls in ((0.5, 40), (0.001, 160)):
        for _ in range(calls):
            now[0] += seconds
            assert not stop.agreed()
    apart = [b - a for a, b in zip(sums, sums[1:])]
    assert all(2 < gap <= 3.01 for gap in apart[1:6]) and len(sums) < 20
    stop.signal = signal.SIGTERM
    assert any(stop.agreed() for _ in range(50))
