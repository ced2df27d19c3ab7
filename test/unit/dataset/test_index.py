"""The index file: what is written comes back; what is cut, damaged, absurd or hostile is as if it were not there."""
import json
import zlib

import cv2
import pytest

from data.video_list import VideoFacts, VideoList
from dataset.index import Record, attach_index, index_path, line_of, read_index, record_of

RECORD = Record("train/a/b.avi", "video", VideoFacts(250, 1 << 40, 1700000000123456789, (12, 100)), cv2.__version__,
                "PyAV 1", 320, 240, 29.97, "some", "", "ab" * 16)


def guarded(**changes):
    """A line with a right checksum and any content."""
    fields = json.loads(line_of(RECORD).decode())
    del fields["check"]
    fields.update(changes)
    text = json.dumps(fields).encode()[:-1]
    return text + b', "check": %d}\n' % zlib.crc32(text)


@pytest.mark.parametrize("path", ["a.avi", "Straße/ü #1 (x).avi", "d/\udce9.avi", 'a", "kind": "video/\\".avi',
                                  "a\nb.avi"])
def test_what_is_written_comes_back(path):
    for record in (RECORD._replace(path=path), RECORD._replace(path=path, problem='it "broke" \\', kind="rawframes"),
                   RECORD._replace(path=path, facts=VideoFacts(0, 0, -5, ()), fps=0.0, b_frames="")):
        line = line_of(record)
        assert record_of(line) == record and line.count(b"\n") == 1
        assert json.loads(line.decode("ascii"))["path"] == path


def test_every_damage_of_a_line_is_seen():
    line = line_of(RECORD)
    for place in range(len(line)):
        assert record_of(line[:place]) is None
        for byte in (0, ord("9"), ord('"'), line[place] ^ 1):
            if byte != line[place]:
                assert record_of(line[:place] + bytes([byte]) + line[place + 1:]) is None, place


@pytest.mark.parametrize("changes", [
    {"num_frames": -1}, {"num_frames": 1 << 31}, {"num_frames": 1.5}, {"num_frames": "9"}, {"num_frames": True},
    {"num_frames": 10 ** 400}, {"num_frames": None}, {"size": -1}, {"size": 1 << 63}, {"mtime_ns": 1 << 63},
    {"mtime_ns": float("nan")}, {"key_frames": [-1]}, {"key_frames": [0, 5]}, {"key_frames": [5, 5]},
    {"key_frames": [9, 5]}, {"key_frames": [250]}, {"key_frames": [1.5]}, {"key_frames": "12"}, {"key_frames": None},
    {"key_frames": [[1]]}, {"fps": float("nan")}, {"fps": float("inf")}, {"fps": "25"}, {"width": "x"},
    {"width": float("nan")}, {"b_frames": "many"}, {"b_frames": []}, {"kind": "gif"}, {"problem": None},
    {"content": 5}, {"path": 5}, {"path": None}, {"strict": {}},
])
def test_absurd_records_are_none(changes):
    assert record_of(guarded()) == RECORD
    assert record_of(guarded(**changes)) is None


@pytest.mark.parametrize("line", [b"", b"\n", b"{}\n", b"null\n", b"[" * 60000 + b"\n", b"\x80\x04K\x01.\n",
                                  b"\xff" * 99, b'{"path": "' + b"a" * 70000 + b'"}\n'])
def test_other_lines_are_none(line):
    assert record_of(line) is None


def write(root, *lines):
    with open(index_path(str(root)), "wb") as file:
        file.write(b"".join(lines))


def test_a_file_of_good_and_bad_lines(tmp_path):
    late = RECORD._replace(facts=RECORD.facts._replace(num_frames=9, key_frames=()))
    write(tmp_path, line_of(RECORD), b"\n", line_of(RECORD)[:-40] + b"\n", bytes(200000), b"\n", line_of(late)[:50])
    records = list(read_index(index_path(str(tmp_path))))
    assert records[0] == RECORD and len(records) > 4 and not any(records[1:])
    assert list(read_index(str(tmp_path / "nowhere"))) == []


def test_lists_learn_what_the_index_knows(tmp_path):
    def named(path, count, **changes):
        return line_of(RECORD._replace(path=path, facts=VideoFacts(count, 5, 6, ()), **changes))
    write(tmp_path, named("train/a/1.avi", 10), named("train/a/2.avi", 20), named("train/a/1.avi", 11),
          named("train/../../etc/passwd", 5), named("/etc/passwd", 5), named("a/3.avi", 7), named("test/a/3.avi", 30),
          named("train/a/3.avi", 40)[:-3] + b"\n", named("train/a/4.avi", 50, opencv="1.0"),
          named("train/a/5.avi", 60, kind="rawframes"), named('train/"q\udce9".avi', 70))
    train = VideoList(str(tmp_path / "train"), ["a/2.avi", "a/1.avi", "a/3.avi", "a/4.avi", "a/5.avi", "a/1.avi",
                                                '"q\udce9".avi'], [0] * 7)
    note = attach_index(str(tmp_path), train, "training")
    counts = [facts and facts.num_frames for facts in map(train.facts, range(7))]
    assert counts == [20, 11, None, None, None, 11, 70]
    assert note == ("index: %s knows 4 of 7 training videos, 3 lines are damaged or from another OpenCV; "
                    "python -m dataset.check brings it up to date" % index_path(str(tmp_path)))
    whole = VideoList(str(tmp_path), ["a/3.avi", "test/a/3.avi"], [0, 0])
    assert attach_index(str(tmp_path), whole, "test").endswith("index.jsonl knows 2 of 2 test videos")
    assert whole.facts(0) == VideoFacts(7, 5, 6, ())


def test_no_index_is_no_word(tmp_path):
    videos = VideoList(str(tmp_path), ["a"], [0])
    assert attach_index(str(tmp_path), videos, "test") == "" and videos.facts(0) is None
