"""The order in which an epoch takes its samples: a whole permutation, or one that reads a packed store as it lies.

It follows from (seed, epoch) alone, so that any number of ranks and workers, and a resumed run, take the same.
"""
from typing import NamedTuple, Optional

import numpy as np

from data.randomness import epoch_order, random_state

ROWS_AT_ONCE = 1 << 20  # mixed at a time, so that long lists need little room


class Stretches(NamedTuple):
    """The rows of a list in the order in which their frames lie on disk."""

    rows: np.ndarray  # (rows,) int32, each row once
    ends: np.ndarray  # (shards,) int64: where each shard's rows end among them


class SampleOrder:
    """Called with an epoch, gives the order of its samples: (num_samples,) int32, a permutation.

    With a `window` the shards of `stretches` come in random order, each read from its start to its end; of these rows
    each `window` following ones are then mixed among themselves.
    """

    def __init__(self, seed: int, num_samples: int, stretches: Optional[Stretches] = None, window: int = 0) -> None:
        if window and stretches is None:
            raise ValueError("--shuffle-window %d: only a packed store can be read as it lies; make one with "
                             "python -m dataset.pack, or leave the option out" % window)
        self.seed = seed
        self.num_samples = num_samples
        self.window = window
        self.stretches = stretches

    def __call__(self, epoch: int) -> np.ndarray:
        if not self.window or self.stretches is None:
            return epoch_order(self.seed, epoch, self.num_samples)
        state = random_state(self.seed, epoch, 0, "window")
        rows, ends = self.stretches
        starts, filled = np.append(0, ends[:-1]), 0
        read = np.empty(len(rows), np.int32 if len(rows) < 1 << 31 else np.int64)
        for shard in state.permutation(len(ends)):
            part = rows[starts[shard]:ends[shard]]
            read[filled:filled + len(part)] = part
            filled += len(part)
        block = self.window * max(1, ROWS_AT_ONCE // self.window)
        for start in range(0, len(read), block):
            part = read[start:start + block]
            windows = np.arange(len(part)) // self.window
            part[:] = part[np.lexsort((state.random_sample(len(part)), windows))]
        return read
