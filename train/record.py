"""What a run leaves behind under exps/TASK/: log lines, scalars, the curves' picture, checkpoints, model.pth,
result.json. Rank 0 writes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import torch

from train.checkpoint import Checkpoints, save_tensors, write_atomically
from train.curves import draw_curves
from train.log import LOGGER, Scalars
from train.metrics import Scores
from train.run import Position
from train.speed import Speed

PNG_NAME = "curves.png"
TABLE_HEADS = ("NAME", "ACC@1", "FPS", "Epochs", "AMP_Type")


@dataclass
class Best:
    """The best evaluation so far; epoch 0 is none."""

    accuracy: float = -1.0
    epoch: int = 0


class RunRecord:
    """Takes the loop's reports. Every process calls it; only `writes` ones touch the disk."""

    def __init__(self, folder: Path, task: str, checkpoints: Checkpoints, snapshot: Callable[[], Dict[str, Any]],
                 state_dict: Callable[[], Dict[str, torch.Tensor]], writes: bool) -> None:
        self.folder, self.task, self.writes, self.shows_progress = folder, task, writes, writes
        self.best = Best()
        self._checkpoints, self._snapshot, self._state_dict = checkpoints, snapshot, state_dict
        self._scalars = Scalars(folder, False)
        self._drawing = True

    def open(self) -> None:
        """Starts the files; nothing is written to the folder before."""
        self._scalars = Scalars(self.folder, self.writes)

    def interval(self, position: Position, scores: Scores, rate: float, speed: Speed) -> None:
        """A line every so many steps."""
        LOGGER.info("epoch %d step %d  loss %.4f  top-1 %.1f %%  lr %.2e  %.2f clips/s  waiting for data %.0f %%",
                    position.epoch + 1, position.step, scores.loss, 100 * scores.top1, rate, speed.clips_per_second,
                    100 * speed.data_wait_share)
        self._scalars.write("train", position.step, {
            "epoch": position.epoch + 1, "loss": scores.loss, "top1": scores.top1, "lr": rate,
            "fps": speed.clips_per_second, "data_wait_share": speed.data_wait_share})

    def epoch(self, position: Position, scores: Scores, speed: Speed, save: bool) -> None:
        """An epoch (or the run) has ended: its scores, the picture, the checkpoint."""
        best = scores.top1 > self.best.accuracy
        if best:
            self.best = Best(scores.top1, position.epoch)
        LOGGER.info("epoch %d: %s%s", position.epoch, describe_scores(scores), "  (best so far)" if best else "")
        self._scalars.write("epoch", position.step, {
            "epoch": position.epoch, "val_loss": scores.loss, "val_top1": scores.top1, "val_top5": scores.top5,
            "unreadable": scores.unreadable, "fps": speed.clips_per_second})
        if not self.writes:
            return
        if self._drawing:
            self._drawing = draw_curves(self.folder / "metrics.jsonl", self.folder / PNG_NAME, self.task)
        if save or best:
            content = dict(self._snapshot(), epoch=position.epoch, position=vars(position).copy(),
                           best=vars(self.best).copy())
            path = self._checkpoints.save(content, self._state_dict())
            LOGGER.info("saved %s", path)

    def finish(self, result: Mapping[str, Any]) -> None:
        """model.pth, result.json and the table line."""
        if self.writes:
            save_tensors({k: v.cpu() for k, v in self._state_dict().items()}, self.folder / "model.pth")
            self.write_result(result)
            LOGGER.info("weights: %s", self.folder / "model.pth")

    def write_result(self, result: Mapping[str, Any], name: str = "result.json") -> None:
        """result.json and the table line, on rank 0."""
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically((json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode("utf-8"),
                             self.folder / name)
            LOGGER.info("result: %s", self.folder / name)
            print("\n".join(table_lines(result)), flush=True)

    def close(self) -> None:
        """Closes the files."""
        self._scalars.close()


def describe_scores(scores: Scores) -> str:
    """One line of an evaluation."""
    return "top-1 %.2f %%  top-5 %.2f %%  loss %.4f  on %d videos" % (100 * scores.top1, 100 * scores.top5, scores.loss,
                                                                      scores.total)


def table_lines(result: Mapping[str, Any]) -> List[str]:
    """The result under the published table's heads."""
    cells = (result["name"], _number(result["accuracy_top1"], "%.2f"), _number(result["fps"], "%.3f"),
             str(result["epochs"]), result["amp_type"])
    widths = [max(len(a), len(b)) for a, b in zip(TABLE_HEADS, cells)]
    rows = (TABLE_HEADS, tuple("-" * w for w in widths), cells)
    return ["| " + " | ".join(text.ljust(w) for text, w in zip(row, widths)) + " |" for row in rows]


def _number(value: Optional[float], form: str) -> str:
    return "-" if value is None else form % value


def move_aside(folder: Path) -> None:
    """Makes room for a new run of that name, so that nothing of an older one is lost."""
    number = 1
    while folder.with_name("%s.old-%d" % (folder.name, number)).exists():
        number += 1
    folder.rename(folder.with_name("%s.old-%d" % (folder.name, number)))
    LOGGER.info("the older run of this name is now %s.old-%d", folder, number)
