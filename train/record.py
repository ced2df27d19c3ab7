"""What a run leaves behind under exps/TASK/: run.json, log lines, scalars, the curves' picture, checkpoints, model.pth,
result.json. Rank 0 writes. (scores.npz is train/scores_file.py's.)
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import torch

from train.background import Background
from train.checkpoint import Checkpoints
from train.curves import draw_curves
from train.files import remove_leftovers, save_tensors, write_atomically
from train.log import LOGGER, Lines, Scalars
from train.metrics import Scores
from train.run import Position
from train.speed import Speed

PNG_NAME = "curves.png"
RUN_NAME = "run.json"
TABLE_HEADS = ("NAME", "ACC@1", "FPS", "Epochs", "AMP_Type")


@dataclass
class Best:
    """The best evaluation so far; epoch 0 is none."""

    accuracy: float = -1.0
    epoch: int = 0


class RunRecord:
    """Takes the loop's reports. Every process calls it; only `writes` ones touch the disk.

    `snapshot` gives what a checkpoint holds beside weights and position; every process calls it, as it sums over them.
    `beside`: a checkpoint is copied, and written while the steps go on. `failure` is the error of the newest one where
    it could not be written; it is known once that is `settled`.
    """

    def __init__(self, folder: Path, task: str, checkpoints: Checkpoints, snapshot: Callable[..., Dict[str, Any]],
                 state_dict: Callable[[], Dict[str, torch.Tensor]], writes: bool, beside: bool = False) -> None:
        self.folder, self.task, self.writes, self.shows_progress = folder, task, writes, writes
        self.best = Best()
        self.failure: Optional[OSError] = None
        self._checkpoints, self._snapshot, self._state_dict = checkpoints, snapshot, state_dict
        self._saving = Background() if beside else None
        self._scalars, self._samples = Scalars(folder, False), Lines(None)
        self._drawing = True

    def open(self, samples: Optional[str] = None, about: Optional[Mapping[str, Any]] = None) -> None:
        """Starts the files, `samples` among them, where the rows of every step are to be written, and run.json, which
        says `about` a training what is known before its first step; nothing is written to the folder before. What a
        killed process left half written is removed.
        """
        if self.writes:
            remove_leftovers(self.folder)
            self._checkpoints.clean()
            if about is not None:
                write_atomically(_as_json(about), self.folder / RUN_NAME)
        self._scalars = Scalars(self.folder, self.writes)
        self._samples = Lines(self.folder / samples if samples else None)

    def samples(self, step: int, rows: List[torch.Tensor]) -> None:
        """This process's clips of a step, by their rows."""
        if self._samples.enabled:
            self._samples.write({"step": step, "rows": torch.cat(rows).tolist()})

    def interval(self, position: Position, scores: Scores, rate: float, speed: Speed,
                 gradient_norm: Optional[float] = None, skipped: int = 0) -> None:
        """A line every so many steps; `gradient_norm` where it is known, and how many steps were left out so far."""
        more: Dict[str, float] = {} if gradient_norm is None else {"gradient_norm": gradient_norm}
        text = "" if gradient_norm is None else "  gradient norm %.3g" % gradient_norm
        if skipped:
            more["skipped"], text = skipped, text + "  %d steps left out so far" % skipped
        LOGGER.info("epoch %d step %d  loss %.4f  top-1 %.1f %%  lr %.2e  %.2f clips/s  waiting for data %.0f %%%s",
                    position.epoch + 1, position.step, scores.loss, 100 * scores.top1, rate, speed.clips_per_second,
                    100 * speed.data_wait_share, text)
        self._scalars.write("train", position.step, {
            "epoch": position.epoch + 1, "loss": scores.loss, "top1": scores.top1, "lr": rate,
            "fps": speed.clips_per_second, "data_wait_share": speed.data_wait_share, **more})

    def epoch(self, position: Position, scores: Scores, speed: Speed, own: Optional[torch.Tensor], save: bool,
              of_last_step: Optional[Scores] = None) -> None:
        """An epoch (or the run) has ended: its scores, the picture, the checkpoint. `own`: as for save; `of_last_step`
        is given where `scores` are those of averaged weights.
        """
        best = scores.top1 > self.best.accuracy
        if best:
            self.best = Best(scores.top1, position.epoch)
        LOGGER.info("epoch %d: %s%s", position.epoch, describe_scores(scores), "  (best so far)" if best else "")
        more: Dict[str, Any] = {}
        if of_last_step is not None:
            LOGGER.info("  so the averaged weights; those of the last step: %s", describe_scores(of_last_step))
            more = {"last_step_val_loss": of_last_step.loss, "last_step_val_top1": of_last_step.top1}
        self._scalars.write("epoch", position.step, {
            "epoch": position.epoch, "val_loss": scores.loss, "val_top1": scores.top1, "val_top5": scores.top5,
            "unreadable": scores.unreadable, "fps": speed.clips_per_second, **more})
        if self.writes and self._drawing:
            self._drawing = self._draw()
        if save or best:
            self.save(position, True, own)

    def save(self, position: Position, evaluated: bool, own: Optional[torch.Tensor] = None) -> Optional[Path]:
        """Writes a checkpoint, or begins to, when the one before is written; its path, None on other processes.

        `own`: the BatchNorm statistics that training goes on with, where they are not the network's now.
        """
        content = dict(self._snapshot(position, evaluated, own), best=vars(self.best).copy())
        if not self.writes:
            return None
        weights = self._state_dict()
        if self._saving is None:
            self._write(content, weights)
        else:
            self._saving.start(functools.partial(self._write, copied(content), copied(weights)))
        return self._checkpoints.path_of(content)

    def _write(self, content: Dict[str, Any], weights: Dict[str, torch.Tensor]) -> None:
        try:
            path = self._checkpoints.save(content, weights)
        except OSError as error:
            self.failure = error
            LOGGER.warning("not saved, older checkpoints are untouched: %s", error)
        else:
            self.failure = None
            LOGGER.info("saved %s", path)

    def settle(self) -> None:
        """Waits for the checkpoint that is being written."""
        if self._saving is not None:
            self._saving.wait()

    def _draw(self) -> bool:
        try:
            return draw_curves(self.folder / "metrics.jsonl", self.folder / PNG_NAME, self.task)
        except OSError as error:
            LOGGER.warning("the curves' picture cannot be written: %s", error)
            return True

    def finish(self, result: Mapping[str, Any], weights: Optional[Mapping[str, torch.Tensor]] = None) -> None:
        """model.pth (`weights`, or the network's), result.json and the table line. OSError where they, or the last
        checkpoint, cannot be written.
        """
        self.settle()
        if self.writes:
            weights = self._state_dict() if weights is None else weights
            save_tensors({k: v.cpu() for k, v in weights.items()}, self.folder / "model.pth")
            self.write_result(result)
            LOGGER.info("weights: %s", self.folder / "model.pth")
        if self.failure:
            raise self.failure

    def write_result(self, result: Mapping[str, Any], name: str = "result.json") -> None:
        """result.json and the table line, on rank 0."""
        if self.writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(_as_json(result), self.folder / name)
            LOGGER.info("result: %s", self.folder / name)
            print("\n".join(table_lines(result)), flush=True)

    def close(self) -> None:
        """Closes the files, when what is being written is."""
        self.settle()
        self._scalars.close()
        self._samples.close()


def copied(content: Any) -> Any:
    """The same with its tensors on the host, and nobody else's."""
    if isinstance(content, dict):
        return {name: copied(value) for name, value in content.items()}
    return content.detach().to("cpu", copy=True) if isinstance(content, torch.Tensor) else content


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


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
