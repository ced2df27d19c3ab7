"""Re-encoded videos: frame i is still frame i, key frames are dense, the same bytes come again, training finds them."""
import os
import shutil
import time
from fractions import Fraction

import numpy as np
import pytest
from conftest import write_video
from film_numbers import FILMS, FRAMES, decode_all, said_index
from film_sets import damaged, stop_when

from data.clip_readers import VideoFile
from dataset import reencode
from dataset.examine import examine
from dataset.prepare import INCOMPLETE, READY, main
from dataset.reencode import Coding, Film, write_film
from dataset.specs import find_dataset, load_videos

FOLDER = find_dataset("folder")
needs_encoder = pytest.mark.skipif(reencode.av is None, reason="PyAV is not installed")


def rewritten(source, target, key_frames=12, short_side=0):
    record = examine(str(source.parent), source.name, "video")
    return write_film(Film(str(source), record.facts.num_frames, record.fps, str(target),
                           Coding(key_frames, 3, short_side)))


@needs_encoder
@pytest.mark.parametrize("name", ["xvid_packed_b.avi", "xvid_no_b.avi", "h264_b.mp4", "mjpeg.avi"])
def test_frames_stay_what_and_where_they_are(tmp_path, name):
    source, film = FILMS / name, tmp_path / "film.mp4"
    assert rewritten(source, film) == ""
    before, after = VideoFile(str(source)).read(range(FRAMES[name])), decode_all(film)
    assert len(after) == FRAMES[name]
    assert [said_index(frame) for frame in after] == [said_index(frame) for frame in before]
    difference = np.stack(after).astype(int) - before[:, :, :, ::-1]
    assert np.abs(difference).mean() < 2.5 and np.abs(difference.mean(axis=(0, 1, 2))).max() < 0.5  # no cast of colour
    record = examine(str(tmp_path), "film.mp4", "video")
    assert record.facts.key_frames == tuple(range(12, FRAMES[name], 12)) and record.b_frames == "none"
    assert (record.problem, record.width, record.height, record.fps) == ("", 128, 96, 25)
    assert rewritten(source, tmp_path / "again.mp4") == ""
    assert (tmp_path / "again.mp4").read_bytes() == film.read_bytes()
    assert sorted(os.listdir(str(tmp_path))) == ["again.mp4", "film.mp4"]


@needs_encoder
@pytest.mark.parametrize("size, short_side, expected", [((49, 37), 0, (49, 37)), ((100, 60), 32, (52, 32)),
                                                        ((60, 100), 33, (32, 54)), ((48, 64), 340, (48, 64))])
def test_sides(tmp_path, size, short_side, expected):
    """As they are, odd or even; shrunk ones are even, since chroma is stored at half the resolution."""
    av = reencode.av
    with av.open(str(tmp_path / "a.avi"), "w") as container:  # OpenCV's writer would make the sides even
        stream = container.add_stream("mpeg4", rate=Fraction(25, 2))
        stream.width, stream.height = size
        for number in range(5):
            grey = np.full((size[1], size[0], 3), 40 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="bgr24")))
        container.mux(stream.encode())
    assert rewritten(tmp_path / "a.avi", tmp_path / "b.mp4", short_side=short_side) == ""
    record = examine(str(tmp_path), "b.mp4", "video")
    assert (record.width, record.height) == expected and record.fps == 12.5
    assert [round(frame.mean() / 40) for frame in decode_all(tmp_path / "b.mp4")] == [0, 1, 2, 3, 4]


def own_source(folder):
    """Seven videos of two classes: one cut off, two that differ in their endings alone, one in another alphabet."""
    names = ("a b/one.avi", "a b/two.AVI", "a b/three.avi", "\u8dd1/four.avi", "\u8dd1/five.avi")
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "film.avi", number, (1, 0), frames=30)
        os.replace(str(folder / "film.avi"), str(folder / name))
    shutil.copyfile(str(FILMS / "h264_b.mp4"), str(folder / "\u8dd1/five.mp4"))
    damaged("xvid_no_b.avi", folder / "a b/cut.avi", 20000, None)
    return folder


def films_of(output):
    folder = output / "reencoded"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.*")}


def prepare(source, output, *more, workers=2):
    return main(["folder", "--source", str(source), "--output", str(output), "--workers", str(workers), *more])


@needs_encoder
def test_training_finds_the_films_without_an_option(tmp_path, capsys):
    source = own_source(tmp_path / "src")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*.*")}
    assert prepare(source, tmp_path / "out", "--reencode", "--key-frames", "10") == READY
    assert "not encoded, taken as it is: videos/a b/cut.avi: " in capsys.readouterr().out
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.rglob("*.*")} == before
    films = films_of(tmp_path / "out")
    assert sorted(films) == ["a b/cut.avi", "a b/one.mp4", "a b/three.mp4", "a b/two.mp4", "made_with.json",
                             "\u8dd1/five.mp4", "\u8dd1/five_mp4.mp4", "\u8dd1/four.mp4"]
    assert films["a b/cut.avi"] == (source / "a b/cut.avi").read_bytes()
    videos = load_videos(FOLDER, str(tmp_path / "out"))
    paths = {part.relative(row): part for part in (videos.train, videos.test) for row in range(len(part))}
    assert set(paths) == set(films) - {"made_with.json"} and videos.train.root.endswith("reencoded")
    assert videos.train.num_known == len(videos.train) and videos.test.num_known == len(videos.test)
    for part in (videos.train, videos.test):
        for row in range(len(part)):
            if part.relative(row) == "a b/one.mp4":
                assert part.facts(row).key_frames == (10, 20)
    assert prepare(source, tmp_path / "out") == READY and films_of(tmp_path / "out") == films  # kept up to date
    assert prepare(source, tmp_path / "one", "--reencode", "--key-frames", "10", workers=1) == READY
    assert films_of(tmp_path / "one") == films
    assert prepare(source, tmp_path / "out", "--reencode") == INCOMPLETE  # other options are not mixed in
    assert "key frames 10" in capsys.readouterr().err


@needs_encoder
def test_a_film_that_could_not_be_encoded_is_tried_again(tmp_path, monkeypatch):
    source = own_source(tmp_path / "src")
    monkeypatch.setattr(reencode, "write_film", lambda film: "no memory" if "one" in film.video else write_film(film))
    assert prepare(source, tmp_path / "out", "--reencode") == READY
    assert {"a b/one.avi", "a b/two.mp4"} < set(films_of(tmp_path / "out"))
    monkeypatch.undo()
    assert prepare(source, tmp_path / "out", "--reencode") == READY
    assert {"a b/one.mp4", "a b/two.mp4"} < set(films_of(tmp_path / "out"))
    assert "a b/one.avi" not in films_of(tmp_path / "out")


@needs_encoder
def test_a_full_disk_ends_the_command(tmp_path, monkeypatch, capsys):
    def full(film, part):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(reencode, "_encode", full)
    assert prepare(own_source(tmp_path / "src"), tmp_path / "out", "--reencode") == INCOMPLETE
    assert "No space left" in capsys.readouterr().err and not (tmp_path / "out" / "reencoded").exists()


@needs_encoder
def test_a_kill_in_the_middle(tmp_path, monkeypatch):
    source, killed = own_source(tmp_path / "src"), tmp_path / "killed"
    monkeypatch.setattr(reencode, "write_film", lambda film: time.sleep(0.2) or write_film(film))
    assert stop_when(lambda: list(killed.glob("reencoded.part/*/*.mp4")),
                     lambda: prepare(source, killed, "--reencode", workers=1)) == -9
    monkeypatch.undo()
    written = {path: path.stat().st_mtime_ns for path in killed.glob("reencoded.part/*/*.mp4")}
    assert 1 <= len(written) < 6 and not (killed / "reencoded").exists()
    assert prepare(source, killed, "--reencode") == READY and not (killed / "reencoded.part").exists()
    assert {path: (killed / "reencoded" / path.parent.name / path.name).stat().st_mtime_ns
            for path in written} == written
    assert prepare(source, tmp_path / "whole", "--reencode") == READY
    assert films_of(killed) == films_of(tmp_path / "whole")


def test_without_an_encoder_it_ends_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reencode, "av", None)
    assert prepare(own_source(tmp_path / "src"), tmp_path / "out", "--reencode") == INCOMPLETE
    assert "pip install av" in capsys.readouterr().err and not (tmp_path / "out").exists()
