"""The samplers against the reference's answers, and the rules they follow."""
import json

import numpy as np
import pytest
from film_numbers import UNIT

from data.clip_sampling import even_clip, random_clip

GOLDEN = json.loads((UNIT / "golden" / "e_samplers.json").read_text())
RANDOM = [row for row in GOLDEN["random"] if row["speed"] == [1.0, 1.0] and not isinstance(row["interval"], list)]


def test_the_golden_file_holds_what_is_needed():
    assert len(RANDOM) >= 4 and len(GOLDEN["evenly"]) >= 4


@pytest.mark.parametrize("row", RANDOM, ids=lambda row: "%d_by_%d_seed%d" % (row["num"], row["interval"], row["seed"]))
def test_random_clip_as_the_reference(row):
    state = np.random.RandomState(row["seed"])
    got = [random_clip(frames, row["num"], row["interval"], state) for frames in row["frames"]]
    assert got == row["idx"]


@pytest.mark.parametrize("row", GOLDEN["evenly"], ids=lambda row: "%d_by_%d_x%d" % (
    row["num"], row["interval"], row["num_times"]))
def test_even_clip_as_the_reference(row):
    for frames, copy_id, indices in row["rows"]:
        assert even_clip(frames, row["num"], row["interval"], row["num_times"], copy_id) == indices


def test_random_clip_reaches_both_ends_and_no_further():
    state = np.random.RandomState(5)
    starts = set()
    for _ in range(400):
        clip = random_clip(20, 4, 5, state)
        assert [b - a for a, b in zip(clip, clip[1:])] == [5, 5, 5]
        starts.add(clip[0])
    assert starts == {0, 1, 2, 3}  # a real start below 4 - cut to an integer - never touches frame 19


def test_short_videos_repeat_from_the_start():
    state = np.random.RandomState(0)
    assert random_clip(3, 8, 8, state) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert even_clip(3, 8, 8) == [0, 1, 2, 0, 1, 2, 0, 1]
    assert even_clip(57, 8, 8) == list(range(0, 57, 8))


def test_clip_number_is_taken_modulo():
    assert even_clip(300, 8, 8, 10, 23) == even_clip(300, 8, 8, 10, 3)


@pytest.mark.parametrize("frames, length, interval", [(0, 8, 8), (10, 0, 8), (10, 8, 0)])
def test_nonsense_is_refused(frames, length, interval):
    with pytest.raises(ValueError, match="at least 1"):
        random_clip(frames, length, interval, np.random.RandomState(0))
    with pytest.raises(ValueError, match="at least 1"):
        even_clip(frames, length, interval)
