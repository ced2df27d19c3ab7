"""The ledger counts each video once, names it once, and stops the run when its budget is used up."""
import json
import multiprocessing
import pickle

import pytest

from data.bad_videos import BadVideoBudgetExceeded, BadVideoLedger


def test_each_is_counted_and_returned_once(tmp_path):
    file = tmp_path / "bad_videos.jsonl"
    ledger = BadVideoLedger(300, path=str(file))
    assert ledger.add([]) == [] and not file.exists()
    assert ledger.add((("a", "empty"), ("b", "torn"), ("a", "empty"))) == [("a", "empty"), ("b", "torn")]
    assert ledger.add([["b", "torn"], ["c", "gone"]]) == [("c", "gone")]  # pinning turns tuples into lists
    assert ledger.count == 3 and ledger.failures == [("a", "empty"), ("b", "torn"), ("c", "gone")]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [{"path": "a", "reason": "empty"}, {"path": "b", "reason": "torn"}, {"path": "c", "reason": "gone"}]


def test_the_processes_of_a_run_share_the_file_and_the_budget(tmp_path):
    file = tmp_path / "bad.jsonl"
    first, second = (BadVideoLedger(100, 0.02, path=str(file)) for _ in range(2))
    assert first.add([("a", "x")]) == [("a", "x")]
    assert second.add([("a", "other"), ("b", "y")]) == [("a", "x"), ("b", "y")]  # the first one's too, for the log
    assert first.add() == [("b", "y")] and first.add() == second.add() == []
    assert first.count == second.count == 2
    with pytest.raises(BadVideoBudgetExceeded, match="3 of 100"):
        first.add([("c", "z")])
    with pytest.raises(BadVideoBudgetExceeded, match="3 of 100"):
        second.add()
    assert [json.loads(line)["path"] for line in file.read_text().splitlines()] == ["a", "b", "c"]


def test_a_resumed_run_writes_none_again_and_counts_what_it_meets(tmp_path):
    file = tmp_path / "bad.jsonl"
    BadVideoLedger(100, 0.05, path=str(file)).add([("a", "x"), ("b", "x"), ("c", "x")])
    with open(str(file), "a") as torn:
        torn.write('{"path": "d", "rea\n')
    resumed = BadVideoLedger(100, 0.02, path=str(file))
    resumed.open()
    assert resumed.count == 0 and resumed.add() == []
    assert resumed.add([("b", "x"), ("e", "y")]) == [("e", "y")]
    assert resumed.count == 2 and file.read_text().count('"b"') == 1
    with pytest.raises(BadVideoBudgetExceeded, match="3 of 100"):
        resumed.add([("a", "x")])


def test_many_processes_write_each_once(tmp_path):
    file = tmp_path / "bad.jsonl"
    pool = [multiprocessing.Process(target=_write, args=(str(file), rank)) for rank in range(4)]
    for process in pool:
        process.start()
    for process in pool:
        process.join()
        assert process.exitcode == 0
    paths = [json.loads(line)["path"] for line in file.read_text().splitlines()]
    assert sorted(paths) == sorted("video%d" % number for number in range(40))


def _write(file, rank):
    ledger = BadVideoLedger(1000, 0.5, path=file)
    for number in range(40):
        ledger.add([("video%d" % ((number + 10 * rank) % 40), "x")])
    assert ledger.count == 40


def test_beyond_the_budget_the_run_stops_with_the_list(tmp_path):
    ledger = BadVideoLedger(100, 0.02, path=tmp_path / "bad.jsonl")
    ledger.add([("a", "x"), ("b", "x")])
    with pytest.raises(BadVideoBudgetExceeded, match="3 of 100 videos cannot be read, 2 % are allowed") as caught:
        ledger.add([("c", "the reason")])
    assert "c: the reason" in str(caught.value) and "a: x" in str(caught.value)
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 3
    assert isinstance(caught.value, ValueError)


def test_strict_stops_at_the_first():
    ledger = BadVideoLedger(100000, strict=True)
    ledger.add([])
    with pytest.raises(BadVideoBudgetExceeded, match="1 of 100000 .* none is allowed"):
        ledger.add([("a", "x")])


def test_a_long_list_is_cut():
    with pytest.raises(BadVideoBudgetExceeded) as caught:
        BadVideoLedger(100, 0.1).add([("video%d" % i, "x") for i in range(50)])
    assert len(str(caught.value).splitlines()) == 22 and "and 30 more" in str(caught.value)


def test_the_exception_travels_between_processes():
    assert str(pickle.loads(pickle.dumps(BadVideoBudgetExceeded("why")))) == "why"


def test_budget_is_a_share():
    with pytest.raises(ValueError, match="share from 0 to 1"):
        BadVideoLedger(10, 5)
