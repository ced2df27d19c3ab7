"""Keyed draws: frozen values, independence of batch and order, and that the noise looks like noise."""
import numpy as np
import pytest
import torch

from data import randomness
from data.randomness import NoiseWords, noise_key, random_state, uniform_noise


def mix(word):
    """The mixer once more, on Python integers."""
    word ^= word >> 16
    word = word * 0x21F0AAAD % 2**32
    word ^= word >> 15
    word = word * 0x735A2D97 % 2**32
    return word ^ word >> 15


def test_noise_is_frozen():
    keys = [0, 1, 2**32 - 1, 123456789]
    places = [0, 1, 2, 1000, 1204223]
    expected = [[mix(mix(place + 0x9E3779B9) ^ mix(key)) // 256 / 2**24 for place in places] for key in keys]
    got = uniform_noise(torch.tensor(keys), 1204224)
    assert got.dtype == torch.float32
    assert got[:, places].tolist() == expected
    assert [int(value * 2**24) for value in expected[1]] == [15723374, 8366971, 7852807, 9514039, 133681]


def test_noise_key_is_frozen():
    def fold(*words):
        key = 0
        for word in words:
            key = mix(((key ^ word) + 0x9E3779B9) % 2**32)
        return key
    assert noise_key(1, 2, 3) == fold(1, 0, 2, 0, 3, 0) == 3878862273
    assert noise_key(-1, 0, 2**33 + 5) == fold(2**32 - 1, 2**32 - 1, 0, 0, 5, 2)


def test_noise_depends_on_key_and_place_alone(monkeypatch):
    keys = torch.tensor([7, 8, 9, 10, 11])
    whole = uniform_noise(keys, 5000)
    assert torch.equal(whole[2:3], uniform_noise(keys[2:3], 5000))
    assert torch.equal(whole[:, :77], uniform_noise(keys, 77))
    assert torch.equal(whole.flip(0), uniform_noise(keys.flip(0), 5000))
    monkeypatch.setattr(randomness, "WORDS_AT_ONCE", 64)
    assert torch.equal(whole, uniform_noise(keys, 5000))
    assert keys.tolist() == [7, 8, 9, 10, 11]


def test_words_for_processors_are_the_same_noise():
    keys, words = [0, 7, 2**32 - 1, 123456789], NoiseWords(700)
    noise = uniform_noise(torch.tensor(keys), 5000).numpy() * 2**24
    for key, row in zip(keys, noise):
        assert np.array_equal(words.at(key, 0, 700), row[:700])
        words.reserve(5000)
        assert np.array_equal(words.at(key, 300, 4700), row[300:])
        assert np.array_equal(words.at(key, 4999, 1), row[4999:])
    assert words.at(7, 0, 10).dtype == np.uint32


def test_noise_of_nothing():
    assert uniform_noise(torch.empty(0, dtype=torch.int64), 5).shape == (0, 5)
    assert uniform_noise(torch.tensor([1]), 0).shape == (1, 0)


def test_noise_is_uniform_and_uncorrelated():
    noise = uniform_noise(torch.arange(16), 1 << 16).numpy().astype(np.float64)
    assert 0 <= noise.min() and noise.max() < 1
    counts = np.histogram(noise, 256, (0, 1))[0]
    chi_square = ((counts - 4096.0)**2 / 4096).sum()
    assert 255 - 5 * 22.6 < chi_square < 255 + 5 * 22.6
    centred = (noise - 0.5) * 12**0.5
    assert abs(centred.mean()) < 5 / 1024
    between_keys = centred @ centred.T / (1 << 16) - np.eye(16)
    assert np.abs(between_keys).max() < 0.03  # 5 / sqrt(2 ** 16) = 0.02
    for lag in (1, 2, 3, 8, 224, 224 * 224):
        assert abs((centred[:, lag:] * centred[:, :-lag]).mean()) < 5 / 1024 * (1 - lag / 65536)**-0.5


def test_random_state_is_frozen_and_equals_numpy():
    words = [5, 0, 2, 0, 9, 0, 3, 0]
    assert random_state(5, 2, 9, 3).randint(0, 2**31, 4).tolist() == np.random.RandomState(words).randint(
        0, 2**31, 4).tolist()
    assert random_state(0, 0, 0, "crop").randint(0, 2**31 - 1, 3).tolist() == [2055267997, 1062924170, 1669789750]


def test_random_state_reused_is_the_same_stream():
    scratch = np.random.RandomState(4)
    scratch.normal(size=3)  # leaves a cached second normal behind
    again = random_state(1, 2, 3, "flip", reuse=scratch)
    assert again is scratch
    assert again.normal(size=5).tolist() == random_state(1, 2, 3, "flip").normal(size=5).tolist()


@pytest.mark.parametrize("other", [
    (2, 2, 3, "a"), (1, 3, 3, "a"), (1, 2, 4, "a"), (1, 2, 3, "b"), (2**32 + 1, 2, 3, "a"), (-1, 2, 3, "a"),
    (1, 2 + (1 << 20), 3, "a")])
def test_each_part_of_the_key_counts(other):
    base = random_state(1, 2, 3, "a").uniform(size=4)
    assert not (base == random_state(*other).uniform(size=4)).any()
    assert other[3] == "b" or noise_key(*other[:3]) != noise_key(1, 2, 3)


def test_global_generators_are_left_alone():
    np.random.seed(3)
    torch.manual_seed(3)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state()
    random_state(1, 2, 3, "a").uniform()
    uniform_noise(torch.tensor([noise_key(1, 2, 3)]), 10)
    assert np.random.get_state()[1].tolist() == before[0] and torch.equal(torch.get_rng_state(), before[1])
