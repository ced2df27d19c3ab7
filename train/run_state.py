"""What a run is, as one dictionary and back: what checkpoints hold beside the weights, and what run.json and
result.json say.
"""

import dataclasses
import os
import time
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence

import torch

from train import checkpoint, distributed
from train import device as devices
from train.bad_steps import BadSteps
from train.checkpoint import CheckpointError, Saved
from train.config import TrainConfig
from train.evaluate import PROTOCOL
from train.log import LOGGER
from train.loop import Trainer
from train.metrics import Scores
from train.record import Best
from train.run import Plan, Position
from train.speed import Speed

# The options that a resumed run must share with its beginning. What the schedule makes of its own is compared as such.
SAME = ("dataset", "split", "random_seed", "shuffle_window", "clip_length", "train_frame_interval",
        "val_frame_interval", "crop_size", "batch_size", "epoch_div_factor", "weight_decay", "clip_grad_norm",
        "fine_tune", "precise_bn", "sync_bn", "mixup", "cutmix", "random_erasing", "label_smoothing")


class DataFacts(NamedTuple):
    """What a run is tied to of its data."""

    name: str
    class_names: Sequence[str]
    num_train: int  # videos
    train_list: str  # digests of the rows
    test_list: str


class Resumed(NamedTuple):
    """Where a run goes on: its position, whether what follows these steps is done, and its best evaluation so far."""

    position: Position
    evaluated: bool
    best: Best


def keep_global_batch(config: TrainConfig, saved: Saved, world_size: int) -> TrainConfig:
    """The configuration with which as many clips make a step as in `saved`, where it began on other numbers of
    processes: each then takes more batches for a step, or fewer.

    CheckpointError, naming what would fit, where that cannot be. Another --batch-size is left as it is: it is refused
    later, unless it may change.
    """
    wanted, before = saved.content["global_batch"], saved.content["config"]
    per_round = config.batch_size * world_size
    if (config.eval_only or per_round * config.accumulate == wanted or "global_batch" in config.allow_change
            or config.batch_size != before["batch_size"]):
        return config
    if wanted % per_round:
        fitting = [n for n in range(1, wanted // config.batch_size + 1) if wanted % (config.batch_size * n) == 0]
        advice = "start %s of them" % " or ".join(str(n) for n in fitting)
        if wanted % world_size == 0:
            advice += ", or give --batch-size %d --allow-change batch_size" % (wanted // world_size)
        raise CheckpointError("--resume %s: its steps take %d clips, which %d processes with --batch-size %d cannot "
                              "share evenly: %s" % (saved.path, wanted, world_size, config.batch_size, advice))
    LOGGER.info("--accumulate %d: %d processes take the %d clips of a step in turns", wanted // per_round, world_size,
                wanted)
    return dataclasses.replace(config, accumulate=wanted // per_round)


class RunState:
    """The trainer and all that a resumed run must meet again. `global_batch` is clips a step over all processes."""

    def __init__(self, config: TrainConfig, trainer: Trainer, data: DataFacts, global_batch: int,
                 bad_steps: BadSteps) -> None:
        self.config, self.trainer, self.data, self.global_batch = config, trainer, data, global_batch
        self.bad_steps = bad_steps
        self._began = time.time()

    def seconds(self) -> float:
        """Seconds of the run, earlier parts of a resumed one included."""
        return time.time() - self._began

    def state_dict(self) -> Dict[str, torch.Tensor]:
        """The weights as they are saved: fp32, master weights where there are any."""
        return self.trainer.precision.state_dict_of(self.trainer.module)

    def final_weights(self) -> Dict[str, torch.Tensor]:
        """What model.pth holds: the averaged weights where there are any."""
        return self.state_dict() if self.trainer.ema is None else self.trainer.ema.weights()

    def snapshot(self, position: Position, evaluated: bool, own: Optional[torch.Tensor] = None) -> Dict[str, Any]:
        """What a checkpoint holds beside weights and best. Every process calls it: it sums over them.

        `own`: this process's BatchNorm statistics (Trainer.statistics) that training goes on with, where they are not
        those of now.
        """
        trainer = self.trainer
        content = {"epoch": position.epoch, "position": vars(position).copy(), "evaluated": evaluated,
                   "optimizer": checkpoint.optimizer_state(trainer.optimizer),
                   "scaler": trainer.precision.scaler.state_dict(),
                   "schedule": checkpoint.plain(vars(trainer.schedule)),
                   "metrics": distributed.all_reduce_sum(trainer.metrics.sums()).tolist(),
                   "random": devices.random_state(trainer.precision.device), "bad_steps": self.bad_steps.in_a_row,
                   "global_batch": self.global_batch, "class_names": list(self.data.class_names),
                   "num_train_videos": self.data.num_train, "train_list": self.data.train_list,
                   "test_list": self.data.test_list,
                   "config": checkpoint.plain(dataclasses.asdict(self.config)), "versions": checkpoint.versions(),
                   "seconds": self.seconds()}
        if trainer.ema is not None:
            content["ema"] = trainer.ema.state_dict()
        if position.samples:
            now = trainer.statistics()
            rows = distributed.gather_rows(now if own is None else own)  # (R, buffers)
            if not all(torch.equal(row, now) for row in rows):
                content["buffers"] = rows.cpu()
        return content

    def resume(self, saved: Saved) -> Resumed:
        """Takes over a checkpoint. CheckpointError where it is of another run."""
        content = saved.content
        self._check(saved)
        trainer = self.trainer
        self._take_weights(content)
        checkpoint.load_optimizer_state(trainer.optimizer, content["optimizer"])
        trainer.precision.scaler.load_state_dict(content["scaler"])
        if distributed.rank() == 0:
            trainer.metrics.go_on(content.get("metrics", [0] * 6))
        if "random" in content:
            devices.set_random_state(content["random"], trainer.precision.device)
        self.bad_steps.in_a_row = content.get("bad_steps", 0)
        position = Position(**content["position"])
        self._began -= content["seconds"]
        LOGGER.info("resumed from %s: %d epochs and %d clips done, step %d", saved.path, position.epoch,
                    position.samples, position.step)
        return Resumed(position, content.get("evaluated", True), Best(**content["best"]))

    def train_on(self, saved: Saved) -> None:
        """Before the next step after `saved`: each process takes its own BatchNorm statistics where they were kept,
        the mean of all where there were other processes.
        """
        rows = saved.content.get("buffers")
        if rows is not None:
            rank = distributed.rank()
            row = rows[rank] if len(rows) == distributed.world_size() else rows.mean(0)
            self.trainer.put_statistics(row.to(self.trainer.precision.device))

    def _check(self, saved: Saved) -> None:
        step = torch.tensor(saved.content["position"]["step"], device=self.trainer.precision.device)
        if int(distributed.all_reduce_sum(step.clone())) != int(step) * distributed.world_size():
            raise CheckpointError("--resume: the processes find different checkpoints (this one %s); do they all see "
                                  "the same --model-dir?" % saved.path)
        config = checkpoint.plain(dataclasses.asdict(self.config))
        expected: Dict[str, Any] = {"network": config["network"], "modality": config["modality"],
                                    "class_names": list(self.data.class_names)}
        if not self.config.eval_only:
            expected.update({name: config[name] for name in SAME}, global_batch=self.global_batch,
                            train_list=self.data.train_list, test_list=self.data.test_list,
                            schedule=checkpoint.plain(vars(self.trainer.schedule)))
            if config["ema_decay"] and saved.content.get("ema"):  # one may begin, or be left out; the log says so
                expected["ema_decay"] = config["ema_decay"]
            if "train_list" not in saved.content:  # an older version's
                expected["num_train_videos"] = self.data.num_train
        checkpoint.check_same_run(saved, expected, self.config.allow_change)

    def _take_weights(self, content: Mapping[str, Any]) -> None:
        """A checkpoint's weights and their average; to be evaluated alone, the average where there is one."""
        ema, trainer = content.get("ema"), self.trainer
        weights = ema["weights"] if ema and self.config.eval_only else content["state_dict"]
        trainer.precision.load_state_dict_into(trainer.module, weights)
        if trainer.ema is not None and ema:
            trainer.ema.load_state_dict(ema)
        elif trainer.ema is not None:
            trainer.ema.restart()
            LOGGER.info("the checkpoint holds no averaged weights: the average starts here")
        elif ema:
            LOGGER.info("averaged weights are evaluated" if self.config.eval_only else
                        "the checkpoint's averaged weights are left out: there is no --ema-decay")

    def about(self, plan: Plan, position: Position, world_size: int) -> Dict[str, Any]:
        """What run.json holds: what is known of a run before its first step. Paths of the configuration lead from
        `started_in`.
        """
        config, device = self.config, self.trainer.precision.device
        return {"task": config.task, "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "started_in": os.getcwd(), "first_step": position.step, "last_step": plan.last_step,
                "steps_per_epoch": plan.steps_per_epoch, "global_batch": self.global_batch,
                "num_train_videos": self.data.num_train, "network": config.network, "modality": config.modality,
                "dataset": self.data.name, "split": config.split, "amp_type": self.trainer.precision.label,
                "device": devices.device_name(device), "world_size": world_size, **checkpoint.versions(),
                "class_names": list(self.data.class_names), "config": checkpoint.plain(dataclasses.asdict(config))}

    def result(self, scores: Scores, position: Position, speed: Speed, world_size: int) -> Dict[str, Any]:
        """What result.json holds. Accuracies in percent, speeds in clips a second, memory in bytes."""
        precision = self.trainer.precision
        device = precision.device
        return {"name": "%dp-%s" % (world_size, device.type.upper()),
                "accuracy_top1": 100 * scores.top1, "accuracy_top5": 100 * scores.top5,
                "fps": speed.clips_per_second or None, "epochs": position.epoch, "amp_type": precision.label,
                "data_wait_share": speed.data_wait_share, "seconds": self.seconds(), "num_videos": scores.total,
                "protocol": PROTOCOL, "device": devices.device_name(device), "torch": str(torch.__version__),
                "num_unreadable": scores.unreadable, "loss": scores.loss, "steps": position.step,
                "skipped_steps": precision.scaler.skipped, "peak_memory_bytes": devices.peak_memory(device),
                "peak_host_memory_bytes": devices.peak_host_memory(),
                "network": self.config.network, "modality": self.config.modality, "dataset": self.data.name,
                "split": self.config.split, "class_names": list(self.data.class_names),
                "config": checkpoint.plain(dataclasses.asdict(self.config))}
