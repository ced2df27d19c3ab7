"""Files that are whole or not there, where they may lie, and words that are safe on a terminal."""
import json
import os
import stat
import threading

import pytest

from tools import outputs, timing
from tools.outputs import check_writable, make_folder, shown, write_whole


def test_what_stood_there_stays_where_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    timing.write_json(str(path), {"old": 1})
    with pytest.raises(TypeError):
        timing.write_json(str(path), {"new": object()})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("train.files.os.fsync", full)
    with pytest.raises(OSError, match="no room"):
        timing.write_json(str(path), {"new": 2})
    assert json.loads(path.read_text()) == {"old": 1} and os.listdir(str(tmp_path)) == ["a.json"]


def test_a_file_is_written_where_the_link_leads(tmp_path):
    (tmp_path / "link").symlink_to(str(tmp_path / "real"))
    write_whole(str(tmp_path / "link"), b"x")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"x"


def test_a_pipe_stays_a_pipe(tmp_path):
    path, read = str(tmp_path / "pipe"), []
    os.mkfifo(path)
    check_writable("json", path)
    reader = threading.Thread(target=lambda: read.append(open(path, "rb").read()))
    reader.start()
    write_whole(path, b"x")
    reader.join(10)
    assert read == [b"x"] and stat.S_ISFIFO(os.stat(path).st_mode)


def test_json_to_standard_output(capsys):
    timing.write_json("-", {"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_where_nothing_can_be_written_is_said_at_once(tmp_path, monkeypatch):
    check_writable("json", str(tmp_path / "a.json"))
    check_writable("json", "-")
    check_writable("json", None)
    for path in (str(tmp_path), str(tmp_path / "none" / "a.json")):
        with pytest.raises(ValueError, match="--json .*cannot be written"):
            check_writable("json", path)
    make_folder("annotate", str(tmp_path / "deep" / "er"))
    with pytest.raises(ValueError, match="--annotate .*cannot be made a folder"):
        (tmp_path / "file").write_bytes(b"")
        make_folder("annotate", str(tmp_path / "file"))
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)  # the super-user may everything
    with pytest.raises(ValueError, match="--json .*cannot be written"):
        check_writable("json", str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="--annotate .*may not be written to"):
        make_folder("annotate", str(tmp_path / "deep"))


def test_signs_that_steer_a_terminal_stand_by_their_codes():
    assert shown("a\nb\x1b[2J \udcff über 投篮") == "a\\nb\\x1b[2J \\udcff über 投篮"
