"""What lies in a source: archives in archives and what they may weigh, two of one name, links that lead out."""
import zipfile

import pytest

from dataset import archives
from dataset.archives import ArchiveError
from dataset.gather import gather


def make_zip(path, files):
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path.read_bytes()


def names(found):
    return sorted(item.name for item in found.videos)


def test_archives_within_an_archive_share_its_allowance(tmp_path, monkeypatch):
    """Each would pass alone; a bomb is made of many."""
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    monkeypatch.setattr(archives, "MOST_RATIO", 1)
    inner = make_zip(tmp_path / "inner.zip", {"a.avi": bytes(400000)})
    make_zip(tmp_path / "two.zip", {"%d.zip" % number: inner for number in range(2)})
    assert names(gather([str(tmp_path / "two.zip")], str(tmp_path / "out"), print)) == ["0/a.avi", "1/a.avi"]
    make_zip(tmp_path / "four.zip", {"%d.zip" % number: inner for number in range(4)})
    with pytest.raises(ArchiveError, match="bomb"):
        gather([str(tmp_path / "four.zip")], str(tmp_path / "out"), print)


def test_two_archives_of_one_name(tmp_path):
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        make_zip(tmp_path / str(number) / "all.zip", {"c/%d.avi" % number: b"x", "c/same.avi": b"y" * (1 + number)})
    found = gather([str(tmp_path / "0" / "all.zip"), str(tmp_path / "1" / "all.zip")], str(tmp_path / "out"), print)
    assert names(found) == ["c/0.avi", "c/1.avi", "c/same.avi", "c/same.avi"]
    assert sorted(len(open(item.place, "rb").read()) for item in found.videos) == [1, 1, 1, 2]


def test_links_that_lead_out_are_named_and_not_followed(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    for place in (tmp_path / "elsewhere" / "a.avi", tmp_path / "src" / "c" / "b.avi"):
        place.parent.mkdir(exist_ok=True, parents=True)
        place.write_bytes(b"x")
    (tmp_path / "src" / "c" / "in.avi").symlink_to("b.avi")
    (tmp_path / "src" / "c" / "out.avi").symlink_to(str(tmp_path / "elsewhere" / "a.avi"))
    (tmp_path / "src" / "d").symlink_to(str(tmp_path / "elsewhere"))
    found = gather([str(tmp_path / "src")], str(tmp_path / "out"), print)
    assert names(found) == ["c/b.avi", "c/in.avi"]
    said = capsys.readouterr().out
    assert "2 links lead out of" in said and "out.avi" in said and "src/d" in said


def test_an_output_within_the_source_is_no_source(tmp_path):
    for name in ("c/a.avi", "out/videos/c/b.avi", "c/._a.avi", "__MACOSX/c/._a.avi"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert names(gather([str(tmp_path)], str(tmp_path / "out"), print)) == ["c/a.avi"]
