"""Archives: what comes out, and what hostile, damaged and interrupted ones must not do."""
import io
import os
import shutil
import stat
import tarfile
import zipfile

import pytest

from dataset import archives
from dataset.archives import ArchiveError, kind_of, unpack

FILES = {"UCF-101/Yo Yo/v_YoYo_g01_c01.avi": b"first" * 1000, "UCF-101/Yo Yo/\u00fcber.AVI": b"second",
         "readme.txt": b""}


def make_zip(path, files, mode=0):
    with zipfile.ZipFile(str(path), "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
    return str(path)


def make_tar(path, files, mode="w"):
    with tarfile.open(str(path), mode) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def content(folder):
    """Path -> bytes of every file below a folder, the mark of completeness left out."""
    found = {}
    for root, _, names in os.walk(str(folder)):
        for name in names:
            with open(os.path.join(root, name), "rb") as file:
                found[os.path.relpath(os.path.join(root, name), str(folder))] = file.read()
    found.pop(archives.DONE, None)
    return found


@pytest.mark.parametrize("name, kind", [("a.zip", "zip"), ("A.TAR.GZ", "tar"), ("a.tgz", "tar"), ("a.rar", "rar"),
                                        ("a.avi", None), ("zip", None)])
def test_an_archive_is_known_by_its_ending(name, kind):
    assert kind_of("/x.zip/" + name) == kind


def packed(path, name):
    modes = {"a.tar": "w", "a.tar.gz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}
    return make_zip(path / name, FILES) if name.endswith("zip") else make_tar(path / name, FILES, modes[name])


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_every_file_comes_out_once(tmp_path, name):
    path, told = packed(tmp_path, name), []
    unpack(path, str(tmp_path / "out"), told.append)
    assert content(tmp_path / "out") == FILES and sum(told) == sum(map(len, FILES.values()))
    place = tmp_path / "out" / "readme.txt"
    place.write_text("changed since")
    unpack(path, str(tmp_path / "out"))
    assert place.read_text() == "changed since"  # done before: nothing is touched
    make_zip(tmp_path / "a.zip", {"other": b"x"})
    unpack(str(tmp_path / "a.zip"), str(tmp_path / "out"))  # another archive of that name
    assert (tmp_path / "out" / "other").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_interrupted_unpacking_goes_on(tmp_path, name):
    path = packed(tmp_path, name)

    def stop(size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(path, str(tmp_path / "out"), stop)
    assert not (tmp_path / "out" / archives.DONE).exists()
    assert all(name.endswith(".part") for name in content(tmp_path / "out"))
    unpack(path, str(tmp_path / "out"))
    assert content(tmp_path / "out") == FILES


@pytest.mark.parametrize("make, name", [(make_zip, "a.zip"), (make_tar, "a.tar")])
@pytest.mark.parametrize("evil", ["../evil", "a/../../evil", "/tmp/glore-evil", "..\\evil", "C:\\evil"])
def test_no_path_leaves_the_folder(tmp_path, make, name, evil):
    path = make(tmp_path / name, {"good.avi": b"x", evil: b"evil"})
    with pytest.raises(ArchiveError, match="leave the folder"):
        unpack(path, str(tmp_path / "in" / "out"))
    found = [name for _, _, names in os.walk(str(tmp_path)) for name in names]
    assert sorted(found) == sorted([name, "good.avi"]) and not os.path.exists("/tmp/glore-evil")


def test_links_and_devices_are_left_out(tmp_path):
    with tarfile.open(str(tmp_path / "a.tar"), "w") as archive:
        for name, kind, target in (("link", tarfile.SYMTYPE, "/etc"), ("hard", tarfile.LNKTYPE, "/etc/passwd"),
                                   ("pipe", tarfile.FIFOTYPE, ""), ("disk", tarfile.BLKTYPE, "")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
        info = tarfile.TarInfo("link/passwd")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    unpack(str(tmp_path / "a.tar"), str(tmp_path / "out"))
    assert content(tmp_path / "out") == {"link/passwd": b"evil"} and not (tmp_path / "out" / "link").is_symlink()
    unpack(make_zip(tmp_path / "l.zip", {"link": b"/etc"}, stat.S_IFLNK | 0o777), str(tmp_path / "zip"))
    assert content(tmp_path / "zip") == {}


def test_a_bomb_is_refused_before_it_is_written(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(4 << 20)})
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    with pytest.raises(ArchiveError, match="bomb"):
        unpack(path, str(tmp_path / "out"))
    assert content(tmp_path / "out") == {}


def test_a_file_longer_than_stated_is_refused(tmp_path):
    """The stated size is what the limits are checked against, so it must hold."""
    path = make_zip(tmp_path / "a.zip", {"zeros": bytes(100000)})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    place = data.rindex(b"PK\x01\x02") + 24
    data[place:place + 4] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(ArchiveError):
        unpack(path, str(tmp_path / "out"))
    assert "zeros" not in content(tmp_path / "out")


def test_too_little_room_is_said_before_writing(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", FILES)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(ArchiveError, match="no room"):
        unpack(path, str(tmp_path / "out"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_damaged_archives_are_named(tmp_path, name):
    path = packed(tmp_path, name)
    data = open(path, "rb").read()
    for number, broken in enumerate((data[:len(data) // 2], b"", b"no archive" * 100)):
        with open(path, "wb") as file:
            file.write(broken)
        with pytest.raises(ArchiveError, match=name):
            unpack(path, str(tmp_path / ("out%d" % number)))


def test_a_locked_zip_says_what_to_do(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"a": b"x"})
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(ArchiveError, match="password"):
        unpack(path, str(tmp_path / "out"))


def fake_tool(folder, name, body):
    path = folder / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)


def test_rar_goes_through_the_tool_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveError, match="apt-get install"):
        unpack(str(tmp_path / "a.rar"), str(tmp_path / "out"))
    system = "PATH=/usr/bin:/bin\n"
    fake_tool(tmp_path, "unrar", system + 'for last; do :; done\nmkdir "$last/C"\necho film >"$last/C/v.avi"\n'
                                          'ln -s /etc "$last/C/link"\nmkfifo "$last/pipe"\n')
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "half").write_text("of an interrupted run")
    unpack(str(tmp_path / "a.rar"), str(tmp_path / "out"))
    assert content(tmp_path / "out") == {"C/v.avi": b"film\n"} and os.listdir(str(tmp_path / "out" / "C")) == ["v.avi"]
    fake_tool(tmp_path, "unrar", system + "echo 'checksum error in v.avi' >&2\nexit 3\n")
    with pytest.raises(ArchiveError, match="checksum error"):
        unpack(str(tmp_path / "a.rar"), str(tmp_path / "again"))


def test_a_tool_that_writes_without_end_is_stopped(tmp_path, monkeypatch):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_tool(tmp_path, "unrar", 'PATH=/usr/bin:/bin\nfor last; do :; done\nhead -c 3000000 /dev/zero >"$last/zeros"\n'
                                 'exec sleep 60\n')
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    monkeypatch.setattr(archives, "LOOK_EVERY", 0.05)
    with pytest.raises(ArchiveError, match="bomb"):
        unpack(str(tmp_path / "a.rar"), str(tmp_path / "out"))
    assert content(tmp_path / "out") == {} and not (tmp_path / "out.part").exists()


def test_a_tool_that_fills_the_disk_is_stopped(tmp_path, monkeypatch):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    monkeypatch.setenv("PATH", str(tmp_path))
    fake_tool(tmp_path, "unrar", "PATH=/usr/bin:/bin\nexec sleep 60\n")
    monkeypatch.setattr(archives, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 100))
    with pytest.raises(ArchiveError, match="no room"):
        unpack(str(tmp_path / "a.rar"), str(tmp_path / "out"))


@pytest.mark.skipif(not shutil.which("unar"), reason="unar is not installed")
def test_unar_really_unpacks(tmp_path):
    """It knows archives by their content, so a zip will do: RAR files can be made by proprietary tools alone."""
    make_zip(tmp_path / "a.rar", FILES)
    unpack(str(tmp_path / "a.rar"), str(tmp_path / "out"))
    assert content(tmp_path / "out") == FILES
