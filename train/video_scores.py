"""From the logits of clips to the scores of videos: the mean of the probabilities of a video's clips and windows,
gathered over all processes without rounding.

N clip, V view (window of a clip), K class.
"""

from typing import Any, List, NamedTuple

import torch
from torch import Tensor

from train.distributed import Ranks, all_reduce_sum
from train.metrics import best_classes
from train.whereabouts import HERE

ROWS_AT_ONCE = 4096  # of a process, in one reduction


class NoNumbers(ValueError):
    """The network's outputs are infinite or no numbers."""


class VideoTable(NamedTuple):
    """One row a video, in the order of the data set's list, on the host."""

    scores: Tensor  # (videos, K) float32 probabilities; zeros where a clip of the video cannot be read
    best: Tensor  # (videos, 5) int64 classes with the highest scores, or all of fewer
    readable: Tensor  # (videos,) bool
    reasons: List[str]  # why a video cannot be read, '' for the others


def sum_of_views(logits: Tensor) -> Tensor:
    """Logits (N, V, K) -> the sum of their probabilities over the views, (N, K) float64 on the host."""
    return logits.float().cpu().double().softmax(2).sum(1)


class VideoScores:
    """Collects the logits of this process's share of the videos, each video's clips all on one process.

    With one view of one clip, the best classes are those that `ClassificationMetrics` counts, ties included.
    """

    def __init__(self, num_videos: int, num_classes: int, views: int, ranks: Ranks) -> None:
        self._num_videos, self._views, self._ranks = num_videos, views, ranks
        own = len(range(ranks.rank, num_videos, ranks.world_size))
        self._sums = torch.zeros(own, num_classes, dtype=torch.float64)
        self._best = torch.zeros(own, min(5, num_classes), dtype=torch.int64)
        self._readable = torch.ones(own, dtype=torch.bool)
        self._reasons = [""] * own

    def add(self, batch: Any, logits: Tensor) -> None:
        """Takes a batch (index, readable, failures) and its logits (N, V, K), V = views of a clip."""
        rows = batch.index.cpu() // self._ranks.world_size  # (N,) places among this process's videos
        readable = batch.readable.cpu()
        self._sums.index_add_(0, rows, sum_of_views(logits) * readable[:, None].double())
        if self._views == 1:
            self._best[rows] = best_classes(logits[:, 0].float()).cpu()
        self._readable[rows[~readable]] = False
        for row, (_, reason) in zip(rows[~readable].tolist(), batch.failures):
            self._reasons[row] = self._reasons[row] or reason

    def table(self, device: torch.device) -> VideoTable:
        """All videos, on every process. NoNumbers where the network gave none, on every process too."""
        HERE.at("gathering the scores of all videos")
        scores = (self._sums / self._views).float() * self._readable[:, None].float()
        best = self._best if self._views == 1 else best_classes(self._sums)
        whole = gather_rows(scores, self._num_videos, self._ranks, device)
        wrong = int((~torch.isfinite(whole)).any(1).sum())
        if wrong:
            raise NoNumbers("the network's outputs are no numbers for %d of %d videos: the weights are broken, or the "
                            "precision is too low for them (leave --amp off)" % (wrong, self._num_videos))
        readable = gather_rows(self._readable.long(), self._num_videos, self._ranks, device).bool()
        return VideoTable(whole, gather_rows(best, self._num_videos, self._ranks, device), readable,
                          gather_texts(self._reasons, self._num_videos, self._ranks, device))


def gather_rows(own: Tensor, num_rows: int, ranks: Ranks, device: torch.device) -> Tensor:
    """Rows rank, rank + world size, … of each process -> all rows (num_rows, ...) on every process, on the host.

    Exact: each value is added to zeros. All processes make the same reductions, however few rows they have.
    """
    whole = torch.zeros((num_rows,) + own.shape[1:], dtype=own.dtype)
    for start in range(0, num_rows, ROWS_AT_ONCE * ranks.world_size):
        part = torch.zeros_like(whole[start:start + ROWS_AT_ONCE * ranks.world_size])
        places = len(part[ranks.rank::ranks.world_size])
        first = start // ranks.world_size
        part[ranks.rank::ranks.world_size] = own[first:first + places]
        whole[start:start + len(part)] = all_reduce_sum(part.to(device)).cpu()
    return whole


def gather_texts(own: List[str], num_rows: int, ranks: Ranks, device: torch.device) -> List[str]:
    """The same for texts."""
    coded = [text.encode("utf-8", "surrogateescape") for text in own]
    sizes = gather_rows(torch.tensor([len(text) for text in coded], dtype=torch.int64), num_rows, ranks, device)
    letters = torch.zeros(len(own), int(sizes.max()) if num_rows else 0, dtype=torch.int32)  # (videos, bytes)
    for row, text in enumerate(coded):
        letters[row, :len(text)] = torch.tensor(list(text), dtype=torch.int32)
    if not letters.shape[1]:
        return [""] * num_rows
    whole = gather_rows(letters, num_rows, ranks, device)
    return [bytes(row[:size]).decode("utf-8", "surrogateescape")
            for row, size in zip(whole.tolist(), sizes.tolist())]
