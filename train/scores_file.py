"""scores.npz of a run: the probabilities of every test video at its newest evaluation, in the format of tools.evaluate
--scores. tools.report makes tables, confusion matrix and mistakes of it.

N clip, V view, K class.
"""

import io
from pathlib import Path
from typing import Any, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor

from train.distributed import Ranks
from train.files import write_atomically
from train.log import LOGGER
from train.video_scores import NoNumbers, VideoScores

SCORES_NAME = "scores.npz"


def pack_scores(paths: Sequence[str], labels: np.ndarray, scores: np.ndarray, readable: np.ndarray,
                class_names: Sequence[str]) -> bytes:
    """The bytes of a scores file: path, label, scores (videos, K) float32, class_names, readable. Plain arrays, no
    pickle.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, path=np.array(paths), label=labels, scores=scores, class_names=np.array(class_names),
                        readable=readable)
    return buffer.getvalue()


class _Rows(NamedTuple):
    """Of a batch, what says whose its logits are."""

    index: Tensor  # type: ignore[assignment]  # tuple.index is not needed
    readable: Tensor
    failures: Sequence[Tuple[str, str]]


class ScoresFile:
    """Keeps the logits of an evaluation where they were computed, so that no batch waits for the host, and writes them
    when it has ended: scores (videos, K), a few megabytes.

    `videos` are the test videos: len(), relative(row), labels. Every process calls it, rank 0 writes.
    """

    def __init__(self, path: Path, videos: Any, class_names: Sequence[str], ranks: Ranks) -> None:
        self._path, self._videos, self._class_names, self._ranks = path, videos, class_names, ranks
        self._kept: List[Tuple[_Rows, Tensor]] = []

    def begin(self) -> None:
        """Before an evaluation: what is left of one that was broken off goes."""
        self._kept = []

    def add(self, batch: Any, logits: Tensor) -> None:
        """Takes the logits (N, V, K) of a batch on the device."""
        self._kept.append((_Rows(batch.index, batch.readable, batch.failures), logits.detach()))

    def write(self, device: torch.device) -> None:
        """After the evaluation. What cannot be written is said, and does not stop the run."""
        collected = VideoScores(len(self._videos), len(self._class_names), 1, self._ranks)
        for rows, logits in self._kept:
            collected.add(rows, logits)
        self._kept = []
        try:
            table = collected.table(device)
            if self._ranks.rank == 0:
                paths = [self._videos.relative(row) for row in range(len(self._videos))]
                write_atomically(pack_scores(paths, self._videos.labels.astype("int64"), table.scores.numpy(),
                                             table.readable.numpy(), self._class_names), self._path)
        except (NoNumbers, OSError) as error:
            LOGGER.warning("%s is not written: %s", self._path.name, error)
