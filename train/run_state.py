"""What a run is, as one dictionary and back: what checkpoints hold beside the weights, and what result.json says."""

import dataclasses
import time
from typing import Any, Dict, NamedTuple, Sequence, Tuple

import torch

from train import checkpoint
from train import device as devices
from train.config import TrainConfig
from train.evaluate import PROTOCOL
from train.log import LOGGER
from train.loop import Trainer
from train.metrics import Scores
from train.record import Best
from train.run import Position
from train.speed import Speed


class DataFacts(NamedTuple):
    """What a run is tied to of its data."""

    name: str
    class_names: Sequence[str]
    num_train: int  # videos


class RunState:
    """The trainer and all that a resumed run must meet again. `global_batch` is clips a step over all processes."""

    def __init__(self, config: TrainConfig, trainer: Trainer, data: DataFacts, global_batch: int) -> None:
        self.config, self.trainer, self.data, self.global_batch = config, trainer, data, global_batch
        self._began = time.time()

    def seconds(self) -> float:
        """Seconds of the run, earlier parts of a resumed one included."""
        return time.time() - self._began

    def state_dict(self) -> Dict[str, torch.Tensor]:
        """The weights as they are saved: fp32, master weights where there are any."""
        return self.trainer.precision.state_dict_of(self.trainer.module)

    def snapshot(self) -> Dict[str, Any]:
        """What a checkpoint holds beside weights and position."""
        return {"optimizer": checkpoint.optimizer_state(self.trainer.optimizer),
                "scaler": self.trainer.precision.scaler.state_dict(),
                "schedule": checkpoint.plain(vars(self.trainer.schedule)), "global_batch": self.global_batch,
                "class_names": list(self.data.class_names), "num_train_videos": self.data.num_train,
                "config": checkpoint.plain(dataclasses.asdict(self.config)), "versions": checkpoint.versions(),
                "seconds": self.seconds()}

    def resume(self, checkpoints: checkpoint.Checkpoints) -> Tuple[Position, Best]:
        """Takes over the checkpoint that --resume names; where the run stands, and its best evaluation so far.

        CheckpointError where there is none or it is of another run.
        """
        path = checkpoints.find(self.config.resume)
        content = checkpoint.load_checkpoint(path)
        expected: Dict[str, Any] = {"network": self.config.network, "modality": self.config.modality,
                                    "class_names": list(self.data.class_names)}
        if not self.config.eval_only:
            expected.update(dataset=self.config.dataset, split=self.config.split, random_seed=self.config.random_seed,
                            shuffle_window=self.config.shuffle_window, global_batch=self.global_batch,
                            num_train_videos=self.data.num_train)
        checkpoint.check_same_run(content, expected, path)
        self.trainer.precision.load_state_dict_into(self.trainer.module, content["state_dict"])
        checkpoint.load_optimizer_state(self.trainer.optimizer, content["optimizer"])
        self.trainer.precision.scaler.load_state_dict(content["scaler"])
        position, best = Position(**content["position"]), Best(**content["best"])
        self._began -= content["seconds"]
        LOGGER.info("resumed from %s: %d epochs and %d clips done, step %d", path, position.epoch, position.samples,
                    position.step)
        return position, best

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
                "network": self.config.network, "modality": self.config.modality, "dataset": self.data.name,
                "split": self.config.split, "class_names": list(self.data.class_names),
                "config": checkpoint.plain(dataclasses.asdict(self.config))}
