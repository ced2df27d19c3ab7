"""Steps whose gradient is no number: they change nothing; too many in a row end the run, and leave what explains them.
"""

import contextlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Tuple

import torch
from torch import nn

from train.distributed import gather_rows
from train.files import write_atomically
from train.log import LOGGER
from train.loop import Trainer

DUMP = "bad_steps.json"
STATISTICS = ("finite", "smallest", "largest", "mean_size")


class NotFinite(ValueError):
    """The gradients are no numbers any more."""


class BadSteps:
    """Counts them. After `most` in a row it writes `bad_steps.json` into the run's folder and raises NotFinite.

    `path_of` gives a video's path for its row. Every process calls it, with the same answers; rank 0 writes.
    """

    def __init__(self, trainer: Trainer, most: int, folder: Path, path_of: Callable[[int], str], writes: bool) -> None:
        self.in_a_row = 0
        self._trainer, self._most, self._folder, self._path_of, self._writes = trainer, most, folder, path_of, writes

    def note(self, applied: bool, step: int, rows: List[torch.Tensor], batch: Any) -> None:
        """Takes note of a step, of the videos of its batches, and of the last of these on the device."""
        self.in_a_row = 0 if applied else self.in_a_row + 1
        if applied:
            return
        LOGGER.warning("step %d left out: its loss or a gradient is infinite or no number (%d in a row)", step,
                       self.in_a_row)
        if self.in_a_row >= self._most:
            self._dump(step, torch.cat(rows), batch)
            raise NotFinite(
                "the loss or the gradients were no numbers for %d steps in a row, up to step %d; nothing of these was "
                "applied. See %s for the videos and the first layer where it shows; lower --lr-base, lengthen "
                "--warmup-steps or, in half precision, lower --loss-scale; the last checkpoint is untouched"
                % (self.in_a_row, step, self._folder / DUMP))

    def _dump(self, step: int, rows: torch.Tensor, batch: Any) -> None:
        module = self._trainer.module
        gradients = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
        weights = list(module.state_dict().items())
        clips = gather_rows(rows).reshape(-1).tolist()  # of a step, over all processes
        outputs = _activations(self._trainer, batch)
        names = [name for name, _ in outputs]
        of_all = gather_rows(torch.stack([values for _, values in outputs]))  # (R, layers, 4)
        broken = (of_all[:, :, 0] < 1).any(1).tolist()
        rank = broken.index(True) if True in broken else 0
        if not self._writes:
            return
        content = {"step": step, "in_a_row": self.in_a_row, "loss_scale": self._trainer.precision.scaler.scale,
                   "rows": clips, "videos": [self._path_of(row) for row in clips], "activations_of_rank": rank,
                   "activations": _table(zip(names, of_all[rank])),
                   "gradients": _table((name, statistics(value)) for name, value in gradients),
                   "weights": _table((name, statistics(value)) for name, value in weights)}
        write_atomically(json.dumps(content, indent=1).encode("utf-8"), self._folder / DUMP)


def statistics(tensor: torch.Tensor) -> torch.Tensor:
    """(4,) float64: the share that is finite; smallest, largest and mean absolute value of that share."""
    values = tensor.detach().double().reshape(-1)
    finite = values[torch.isfinite(values)]
    if not len(finite):
        return torch.tensor([float(not len(values)), 0.0, 0.0, 0.0], dtype=torch.float64, device=values.device)
    return torch.stack([finite.new_tensor(len(finite) / len(values)), finite.min(), finite.max(), finite.abs().mean()])


def _activations(trainer: Trainer, batch: Any) -> List[Tuple[str, torch.Tensor]]:
    """The statistics of every layer's output for the batch, in the order of the forward pass."""
    found: List[Tuple[str, torch.Tensor]] = []
    with _hooks(trainer.module, lambda name, output: found.append((name, statistics(output)))):
        with torch.no_grad(), trainer.precision.cast():
            trainer.module(trainer.transform(batch))
    return found


@contextlib.contextmanager
def _hooks(module: nn.Module, note: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _, inputs, output: note(name, output) if isinstance(output, torch.Tensor) else None

    handles = [layer.register_forward_hook(hook(name or "network")) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _table(rows: Any) -> Dict[str, Dict[str, float]]:
    return {name: dict(zip(STATISTICS, (float("%.6g" % value) for value in values.tolist()))) for name, values in rows}
