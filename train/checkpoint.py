"""Checkpoints: one dictionary of plain data, written whole or not at all, believed only when its seal holds.

Schema 1: schema, sealed, epoch (epochs done), state_dict (fp32, keys with the `module.` of the original's files),
optimizer, scaler, ema {decay, steps, weights} (the average as a whole state dict, with --ema-decay), position {epoch,
samples, step}, evaluated (whether the scores of that position are taken),
metrics (sums since the last log line), buffers (where processes' BatchNorm statistics are not those of state_dict: a
row each), random, bad_steps, global_batch, schedule, best {accuracy, epoch}, class_names, train_list and test_list
(digests of the rows), config, versions, seconds. Those of earlier versions lack some of them. What is read back is
opened by network.safe_load alone: a file that holds code is refused.
"""

import dataclasses
import platform
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Union

import torch

from network.safe_load import safe_load
from train.config import TrainConfig
from train.files import is_sealed, remove_leftovers, save_tensors, write_atomically
from train.log import LOGGER

SCHEMA = 1
NEWEST = "newest"
_PREFIX = "module."
_NEEDED = ("epoch", "state_dict", "optimizer", "scaler", "position", "best", "global_batch", "class_names", "config",
           "seconds")


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, cannot be used or does not fit this run."""


class Saved(NamedTuple):
    """A checkpoint that was read."""

    path: Path
    content: Dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in a folder: `<task>_ep-NNNN.pth` after an epoch, `<task>_step-NNNNNNNN.pth` between.

    The newest `keep` and the best are kept. The file `newest` names them, the newest first, and is written last.
    """

    def __init__(self, folder: Path, task: str, keep: int = 3) -> None:
        self.folder, self.task, self.keep = folder, task, keep
        self._name = re.compile(r"^%s_(ep-\d{4,}|step-\d{8,})\.pth$" % re.escape(task))

    def path(self, epoch: int) -> Path:
        """Where the checkpoint of an epoch lies."""
        return self.folder / ("%s_ep-%04d.pth" % (self.task, epoch))

    def step_path(self, step: int) -> Path:
        """Where the checkpoint of a step between two evaluations lies."""
        return self.folder / ("%s_step-%08d.pth" % (self.task, step))

    def path_of(self, content: Mapping[str, Any]) -> Path:
        """Where that of a content lies."""
        evaluated = content.get("evaluated", True)
        return self.path(content["epoch"]) if evaluated else self.step_path(content["position"]["step"])

    def newest_first(self) -> List[Path]:
        """All of them: those that `newest` names, then others, epochs before steps."""
        here = {path.name for path in self.folder.iterdir() if self._name.match(path.name)} \
            if self.folder.is_dir() else set()
        others = sorted(here, key=lambda name: ("_ep-" in name[len(self.task):], len(name), name), reverse=True)
        return [self.folder / name for name in dict.fromkeys(self._listed() + others) if name in here]

    def _listed(self) -> List[str]:
        try:
            return (self.folder / NEWEST).read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return []

    def save(self, content: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> Path:
        """Writes the checkpoint of `content`'s epoch or step and names it the newest; then removes what is neither
        among the newest nor the best. OSError where it cannot be written: the others are then as they were.
        """
        path = self.path_of(content)
        weights = {_PREFIX + name: value.cpu() for name, value in state_dict.items()}
        save_tensors(dict(content, schema=SCHEMA, sealed=True, state_dict=weights), path)
        order = [path] + [other for other in self.newest_first() if other != path]
        kept = [p for place, p in enumerate(order) if place < self.keep or p == self.path(content["best"]["epoch"])]
        write_atomically("".join(p.name + "\n" for p in kept).encode("utf-8"), self.folder / NEWEST)
        for old in set(order) - set(kept):
            _remove(old)
        return path

    def clean(self) -> None:
        """Removes what a killed process left half written."""
        for path in remove_leftovers(self.folder):
            LOGGER.info("removed %s, which was never written to its end", path)

    def choose(self, wanted: Union[bool, str]) -> Union[bool, str]:
        """--resume as it is meant: auto goes on where there is a checkpoint."""
        return bool(self.newest_first()) if wanted == "auto" else wanted

    def load(self, wanted: Union[bool, str]) -> Saved:
        """The newest sound one (True), one epoch's ('epoch:3'), or any file. CheckpointError where there is none."""
        if wanted is not True:
            return load_checkpoint(self._find(str(wanted)))
        damaged = []
        for path in self.newest_first():
            try:
                saved = load_checkpoint(path)
            except (ValueError, OSError) as error:
                damaged.append("%s" % error)
                LOGGER.warning("refused: %s", error)
                continue
            if damaged:
                LOGGER.warning("taken instead: %s", path)
            return saved
        if damaged:
            raise CheckpointError("--resume: no checkpoint in %s can be used: %s" % (self.folder, "; ".join(damaged)))
        raise CheckpointError("--resume: no checkpoint of this run in %s; drop --resume, or give a file" % self.folder)

    def _find(self, wanted: str) -> Path:
        path = self.path(int(wanted[6:])) if wanted.startswith("epoch:") else Path(wanted)
        if not path.is_file():
            raise CheckpointError("--resume %s: no such file; in %s there is %s" % (
                path, self.folder, ", ".join(found.name for found in self.newest_first()) or "no checkpoint"))
        return path


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        LOGGER.warning("an old checkpoint stays: %s", error)


def load_checkpoint(path: Path) -> Saved:
    """A checkpoint of this project as plain data, `module.` taken off its keys. CheckpointError where it is none or its
    bytes changed, UnsafeFileError where it is no plain data.
    """
    try:
        sealed = is_sealed(path)
    except ValueError as error:
        raise CheckpointError("--resume: %s" % error)
    content = safe_load(str(path))
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CheckpointError(
            "--resume %s: no checkpoint of this toolkit (schema %d); weights alone go to --pretrained" % (path, SCHEMA))
    if content.get("sealed") and not sealed:
        raise CheckpointError("--resume: %s is damaged: its end is missing" % path)
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise CheckpointError("--resume %s: the checkpoint lacks %s" % (path, ", ".join(missing)))
    state = content["state_dict"]
    content["state_dict"] = {k[len(_PREFIX) :] if k.startswith(_PREFIX) else k: v for k, v in state.items()}
    return Saved(path, content)


def check_same_run(saved: Saved, expected: Mapping[str, Any], allowed: Sequence[str] = ()) -> None:
    """Refuses a checkpoint of another run, naming each difference. `expected` maps a word of the schema or of config
    to its value here; what is `allowed` to differ is said in the log. CheckpointError as well where `allowed` holds a
    name that is not compared. An option that the checkpoint does not know had its default then; other words that it
    does not know are not compared.
    """
    unknown = [name for name in allowed if name not in expected]
    if unknown:
        raise CheckpointError("--allow-change %s: is not compared; takes some of %s"
                              % (",".join(unknown), ",".join(sorted(expected))))
    defaults = plain({row.name: row.default for row in dataclasses.fields(TrainConfig)})
    found = {**defaults, **saved.content["config"], **saved.content}
    wrong = {name: "%s was %s, is %s" % (name, _short(found[name]), _short(value)) for name, value in expected.items()
             if name in found and found[name] != value}
    for name in set(wrong) & set(allowed):
        LOGGER.warning("--allow-change: %s", wrong.pop(name))
    if wrong:
        raise CheckpointError(
            "--resume %s: it is of another run: %s. Give it as --pretrained to start from its weights, or go on all "
            "the same with --allow-change %s" % (saved.path, "; ".join(wrong.values()), ",".join([*wrong, *allowed])))


def _short(value: Any) -> str:
    if isinstance(value, str) and len(value) == 64:  # a digest
        return value[:12]
    return "%d names" % len(value) if isinstance(value, list) and len(value) > 8 else str(value)


def optimizer_state(optimizer: torch.optim.Optimizer) -> Dict[str, torch.Tensor]:
    """The momentum of each parameter by the parameter's name, so that it does not depend on the groups' order; on the
    host, so that the file opens on a machine without the device.
    """
    return {name: optimizer.state[p]["momentum_buffer"].detach().cpu() for group in optimizer.param_groups
            for name, p in zip(group["names"], group["params"])
            if optimizer.state.get(p, {}).get("momentum_buffer") is not None}


def load_optimizer_state(optimizer: torch.optim.Optimizer, momenta: Mapping[str, torch.Tensor]) -> None:
    """Puts the momenta back, each on its parameter's device and in its type."""
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"]):
            if name in momenta:
                optimizer.state[parameter]["momentum_buffer"] = (
                    momenta[name].to(parameter.device, parameter.dtype).clone())


def plain(config: Mapping[str, Any]) -> Dict[str, Any]:
    """A configuration as plain data: tuples become lists."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}


def versions() -> Dict[str, str]:
    """What wrote a checkpoint."""
    return {"torch": str(torch.__version__), "python": platform.python_version()}
