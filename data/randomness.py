"""Keyed draws: every random number follows from (seed, epoch, sample), on any worker, rank, device and version.

The host draws scalars from NumPy's legacy generator, whose streams are frozen. Noise for every pixel comes from
an integer hash of (key, position), built on the 32-bit mixers of C. Wellons, "Prospecting for Hash Functions", 2018.
"""
import zlib
from typing import List, Optional, TypeVar, Union

import numpy as np
import torch

WORD = 0xFFFFFFFF
MULTIPLIERS = (0x21F0AAAD, 0x735A2D97)  # below 2**31, so that a product with a 32-bit word fits int64
GOLDEN = 0x9E3779B9
WORDS_AT_ONCE = 1 << 24  # devices want large blocks
Word = TypeVar("Word", int, torch.Tensor)


def random_state(seed: int, epoch: int, sample: int, stream: Union[str, int],
                 reuse: Optional[np.random.RandomState] = None) -> np.random.RandomState:
    """A generator of its own for one purpose (`stream`) of one sample in one epoch.

    `reuse`, where given, is seeded anew and returned: ten times cheaper than a new one, and the same stream.
    """
    words: List[int] = []
    for value in (seed, epoch, sample, zlib.crc32(stream.encode()) if isinstance(stream, str) else stream):
        words += [value & WORD, (value >> 32) & WORD]
    if reuse is None:
        return np.random.RandomState(words)
    reuse.seed(words)
    return reuse


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The order in which an epoch takes its samples: (num_samples,) int32, a permutation; of 2**31 or more, int64."""
    order = np.arange(num_samples, dtype=np.int32 if num_samples < 1 << 31 else np.int64)
    random_state(seed, epoch, 0, "order").shuffle(order)  # RandomState.permutation's order in half its room
    return order


def noise_key(seed: int, epoch: int, sample: int) -> int:
    """The sample's key to `uniform_noise`, in [0, 2**32)."""
    key = 0
    for value in (seed, epoch, sample):
        for word in (value & WORD, (value >> 32) & WORD):
            key = _mix(((key ^ word) + GOLDEN) & WORD)
    return key


class NoiseWords:
    """The noise as integers below 2**24, for processors: arithmetic on 32-bit words, what all keys share kept."""

    def __init__(self, num: int = 0) -> None:
        self._places = np.empty(0, np.uint32)  # the mixed words of positions
        self._words, self._shifted = np.empty(0, np.uint32), np.empty(0, np.uint32)
        self.reserve(num)

    def reserve(self, num: int) -> None:
        """Makes positions 0..num-1 ready."""
        if num > len(self._places):
            self._places = np.arange(GOLDEN, GOLDEN + num, dtype=np.int64).astype(np.uint32)
            _mix_words(self._places, np.empty_like(self._places))

    def at(self, key: int, start: int, num: int) -> np.ndarray:
        """The words of a key at `num` positions from `start` on: (num,) uint32, valid until the next call."""
        if num > len(self._words):
            self._words, self._shifted = np.empty(num, np.uint32), np.empty(num, np.uint32)
        words, shifted = self._words[:num], self._shifted[:num]
        np.bitwise_xor(self._places[start:start + num], np.uint32(_mix(key)), out=words)
        _mix_words(words, shifted)
        return np.right_shift(words, np.uint32(8), out=words)


def uniform_noise(keys: torch.Tensor, num: int) -> torch.Tensor:
    """Noise of each key at positions 0..num-1: (N,) int64 keys in [0, 2**32) -> (N, num) float32 in [0, 1).

    A value depends on its key and position alone. 24 bits each, exact in float32, so equal on every device.
    """
    noise = torch.empty((len(keys), num), dtype=torch.float32, device=keys.device)
    mixed = _mix(keys.clone()).unsqueeze(1)
    step = max(1, WORDS_AT_ONCE // max(1, len(keys)))
    for start in range(0, num, step):
        stop = min(start + step, num)
        place = _mix(torch.arange(GOLDEN + start, GOLDEN + stop, dtype=torch.int64, device=keys.device))
        word = _mix(place.unsqueeze(0) ^ mixed)  # (N, up to step)
        word >>= 8
        noise[:, start:start + step] = word
    return noise.mul_(1 / (1 << 24))


def _mix_words(words: np.ndarray, shifted: np.ndarray) -> None:
    """`_mix` of uint32 words, which wrap of themselves, in place; `shifted` is room of the same shape."""
    for shift, multiplier in ((16, MULTIPLIERS[0]), (15, MULTIPLIERS[1]), (15, 1)):
        np.bitwise_xor(words, np.right_shift(words, np.uint32(shift), out=shifted), out=words)
        if multiplier != 1:
            np.multiply(words, np.uint32(multiplier), out=words)


def _mix(word: Word) -> Word:
    """A bijection of 32-bit words that spreads every bit over all; a tensor of int64 words is changed in place."""
    word ^= word >> 16
    word *= MULTIPLIERS[0]
    word &= WORD
    word ^= word >> 15
    word *= MULTIPLIERS[1]
    word &= WORD
    word ^= word >> 15
    return word
