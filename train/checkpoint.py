"""Checkpoints: one dictionary of plain data, written whole or not at all.

Schema 1: schema, epoch (epochs done), state_dict (fp32, keys with the `module.` of the original's files), optimizer,
scaler, position {epoch, samples, step}, global_batch, schedule, best {accuracy, epoch}, class_names, config, versions,
speed. What is read back is opened by network.safe_load alone: a file that holds code is refused.
"""

import errno
import io
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Union

import torch

from network.safe_load import safe_load

SCHEMA = 1
_PREFIX = "module."
_NEEDED = ("epoch", "state_dict", "optimizer", "scaler", "position", "best", "global_batch", "class_names", "config",
           "seconds")


class CheckpointError(ValueError):
    """A checkpoint that is missing, cannot be used or does not fit this run."""


def write_atomically(data: bytes, path: Path) -> None:
    """Writes a file whole: to a temporary name beside it, flushed to the disk, then renamed. A full disk is an
    OSError that says so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".%s.%d.tmp" % (path.name, os.getpid()))
    try:
        with open(str(temporary), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(str(temporary), str(path))
    except OSError as error:
        if temporary.exists():
            temporary.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                error.errno,
                "no room to write %.0f MB; free some, or choose another disk with --model-dir. "
                "What was there before is untouched"
                % (len(data) / 1e6),
                str(path),
            ) from error
        raise


def save_tensors(content: Any, path: Path) -> None:
    """torch.save by way of memory, so that a full disk is an error and never a torn file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(buffer.getvalue(), path)


class Checkpoints:
    """The checkpoints of one run: `<task>_ep-NNNN.pth` in a folder, the newest `keep` and the best of them kept."""

    def __init__(self, folder: Path, task: str, keep: int = 3) -> None:
        self.folder, self.task, self.keep = folder, task, keep
        self._name = re.compile(r"^%s_ep-(\d{4,})\.pth$" % re.escape(task))

    def path(self, epoch: int) -> Path:
        """Where the checkpoint of an epoch lies."""
        return self.folder / ("%s_ep-%04d.pth" % (self.task, epoch))

    def epochs(self) -> List[int]:
        """The epochs that have one, oldest first."""
        found = (self._name.match(p.name) for p in self.folder.iterdir()) if self.folder.is_dir() else ()
        return sorted(int(m.group(1)) for m in found if m)

    def save(self, content: Mapping[str, Any], state_dict: Mapping[str, torch.Tensor]) -> Path:
        """Writes the checkpoint of `content['epoch']`, then removes what is neither among the newest nor the best."""
        path = self.path(content["epoch"])
        weights = {_PREFIX + name: value.cpu() for name, value in state_dict.items()}
        save_tensors(dict(content, schema=SCHEMA, state_dict=weights), path)
        for epoch in self.epochs()[: -self.keep]:
            if epoch != content["best"]["epoch"]:
                self.path(epoch).unlink()
        return path

    def find(self, wanted: Union[bool, str]) -> Path:
        """The newest (True), one epoch's ('epoch:3') or any file's path. CheckpointError names what is missing."""
        if wanted is True:
            epochs = self.epochs()
            if not epochs:
                raise CheckpointError(
                    "--resume: no checkpoint of this run in %s; drop --resume, or give a file" % self.folder)
            return self.path(epochs[-1])
        path = self.path(int(str(wanted)[6:])) if str(wanted).startswith("epoch:") else Path(str(wanted))
        if not path.is_file():
            raise CheckpointError(
                "--resume %s: no such file; there are epochs %s in %s" % (path, self.epochs() or "none", self.folder))
        return path


def load_checkpoint(path: Path) -> Dict[str, Any]:
    """A checkpoint of this project as plain data, `module.` taken off its keys. CheckpointError where it is none."""
    content = safe_load(str(path))
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise CheckpointError(
            "--resume %s: no checkpoint of this toolkit (schema %d); weights alone go to --pretrained" % (path, SCHEMA))
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise CheckpointError("--resume %s: the checkpoint lacks %s" % (path, ", ".join(missing)))
    state = content["state_dict"]
    content["state_dict"] = {k[len(_PREFIX) :] if k.startswith(_PREFIX) else k: v for k, v in state.items()}
    return content


def check_same_run(content: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Refuses a checkpoint of another run, naming each difference. `expected` maps a word of the schema or of config
    to its value here.
    """
    older = {"shuffle_window": 0, "modality": "rgb"}  # of checkpoints from before these options
    found = {**older, **content["config"], **content}
    wrong = ["%s was %s, is %s" % (name, _short(found.get(name)), _short(value)) for name, value in expected.items()
             if found.get(name) != value]
    if wrong:
        raise CheckpointError("--resume %s: it is of another run: %s. Give it as --pretrained to start from its weights"
                              % (path, "; ".join(wrong)))


def _short(value: Any) -> str:
    return "%d names" % len(value) if isinstance(value, (list, tuple)) else str(value)


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
    return {"torch": str(torch.__version__)}
