"""Marks, beats, and what a process says when it has lost the others; the store is a dictionary here."""
import json
import time

import pytest

from train.whereabouts import BEATS_FOLDER, LOST, Watch, Whereabouts, describe, read_beats


class Store:
    """What the other ranks say; those in `alive` say something new at each look."""

    def __init__(self, alive=(), answers=True):
        self.alive, self.answers, self.looks, self.said = alive, answers, 0, {}

    def set(self, key, text):
        self.said[key] = text

    def get(self, key):
        while not self.answers:
            time.sleep(0.1)
        self.looks += 1
        rank = int(key.rpartition("/")[2])
        return b"%d step %d" % (self.looks if rank in self.alive else 7, 10 + rank)


def test_a_place_is_told_with_its_batches():
    here = Whereabouts()
    assert here.text == "starting"
    here.at("epoch 2: precise BN")
    assert here.text == "epoch 2: precise BN" and here.seconds < 5
    here.tick()
    here.tick()
    assert here.text == "epoch 2: precise BN, batch 2"
    here.at("evaluation")
    assert here.text == "evaluation"


def test_places_are_grouped_and_the_silent_come_first():
    before = {0: "4 a", 1: "4 a", 2: "9 b", 3: "1 c"}
    after = {**before, 0: "6 a", 1: "5 a"}
    assert describe(before, after, [0, 1, 2, 3]) == [
        "rank 2: no sign of life, last at 'b'", "rank 3: no sign of life, last at 'c'", "ranks 0, 1: at 'a'"]
    many = {rank: "1 a" for rank in range(1024)}
    assert describe(many, many, list(many)) == [
        "ranks %s and 1008 more: no sign of life, last at 'a'" % ", ".join(map(str, range(16)))]


@pytest.mark.parametrize("store, words", [
    (Store(alive=(2,)), "  rank 1: no sign of life, last at 'step 11'\n  rank 2: at 'step 12'\n"),
    (Store(answers=False), "does not answer"), (None, "nothing is known of the others")])
def test_standing_still_for_longer_than_the_limit_is_the_end(tmp_path, monkeypatch, capsys, store, words):
    monkeypatch.setattr("train.whereabouts.PERIOD", 0.02)
    monkeypatch.setattr("train.whereabouts.LISTENING", 0.5)
    monkeypatch.setenv(BEATS_FOLDER, str(tmp_path))
    monkeypatch.setenv("LOCAL_RANK", "5")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    here, left = Whereabouts(), []
    here.at("step 17: training")
    watch = Watch(0, 3, 0.3, store, here, left.append)
    watch.start()
    assert [beat.state for beat in read_beats(tmp_path)] == ["running"] and (tmp_path / "5.json").exists()
    for _ in range(10):
        time.sleep(0.06)
        here.tick()
    assert not left  # slow is not still
    end = time.monotonic() + 10
    while not left and time.monotonic() < end:
        time.sleep(0.02)
    watch.stop()
    said = capsys.readouterr().err
    assert left == [LOST] and watch.is_lost and said.count("rank 0 of 3 has lost the others") == 1
    assert "at 'step 17: training, batch 10' (nothing has happened here for" in said and words in said
    [beat] = read_beats(tmp_path)
    assert (beat.state, beat.place, beat.limit, beat.restarts_left) == ("lost", "step 17: training, batch 10", 0.3, 2)


def test_who_leaves_in_order_is_done_and_says_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(BEATS_FOLDER, str(tmp_path))
    store = Store()
    watch = Watch(5, 8, 60.0, store, Whereabouts(), pytest.fail)
    watch.start()
    assert store.said == {"glore/whereabouts/0/5": "0 starting"}
    watch.stop()
    assert json.loads((tmp_path / "5.json").read_text())["state"] == "done" and not watch.is_lost
    assert capsys.readouterr().err == ""
