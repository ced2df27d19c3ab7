import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from data.clip_readers import VideoFile
from dataset import motion10
from dataset.specs import DATASETS, find_dataset, load_videos


def digests(root):
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(root).rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The whole set, its files empty."""
    root = tmp_path_factory.mktemp("motion10")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion10, "make_clip", lambda *key: None)
        patch.setattr(motion10, "write_film", lambda path, clip, rate: open(path, "wb").close())
        return root, load_videos(find_dataset("motion10"), str(root), 1)


@pytest.fixture
def small(monkeypatch):
    """A set of two classes with three groups of one clip."""
    monkeypatch.setattr(motion10, "MOTIONS", {name: motion10.MOTIONS[name] for name in ("Spin", "Boil")})
    monkeypatch.setattr(motion10, "GROUPS", 3)
    monkeypatch.setattr(motion10, "CLIPS_PER_GROUP", 1)


def test_structure(rendered):
    root, videos = rendered
    assert len(videos.class_names) == 10 == len(set(videos.class_names))
    assert sorted(path.name for path in (root / "data").iterdir() if path.is_dir()) == sorted(videos.class_names)
    assert len(list((root / "data").rglob("*.avi"))) == len(videos.train) + len(videos.test) == 1250
    assert len(videos.test) == 350 and np.bincount(videos.test.labels).tolist() == [35] * 10
    assert np.bincount(videos.train.labels).tolist() == [90] * 10
    assert any(note.startswith("motion10: rendered in") for note in videos.notes)
    assert not any("missing" in note for note in videos.notes)


def test_groups_are_kept_apart(rendered):
    root, _ = rendered
    spec = find_dataset("motion10")
    for split, expected in ((1, range(1, 8)), (2, range(8, 15)), (3, range(15, 22))):
        videos = load_videos(spec, str(root), split)
        groups = [{int(part.relative(row).rsplit("_g", 1)[1][:2]) for row in range(len(part))}
                  for part in (videos.train, videos.test)]
        assert groups[1] == set(expected) and not groups[0] & groups[1]
        assert groups[0] | groups[1] == set(range(1, 26))
        for row in range(0, len(videos.train), 97):
            folder, name = videos.train.relative(row).split("/")
            assert folder == videos.class_names[videos.train.label(row)] and name.startswith("v_%s_g" % folder)


@pytest.mark.parametrize("motion", sorted(motion10.MOTIONS))
def test_files_hold_the_frames(tmp_path, motion):
    made = motion10.make_clip(motion, 4, 5)
    path = str(tmp_path / motion10.video_name(motion, 4, 5))
    motion10.write_film(path, made, motion10.FRAMES_PER_SECOND)
    reader = VideoFile(path)
    assert reader.num_frames == 24 >= 7 * DATASETS["motion10"].defaults["train_frame_interval"] + 1
    clip = reader.read(range(24))
    assert clip.shape == (24, 40, 40, 3)
    # Motion JPEG halves the resolution of colour; brightness stays close.
    assert np.abs(clip.mean(-1) - made.mean(-1)).mean() < 4
    assert os.path.getsize(path) * 1250 < 80e6


def test_motions_are_what_their_names_say():
    """Measured on the frames: the displacement over two frames that fits best in the middle of the picture."""
    shifts = {}
    for name in ("Up", "Down", "Sideways", "Still"):
        clip = motion10.make_clip(name, 9, 2).astype(float).mean(-1)
        errors = {(down, right): np.abs(np.roll(clip[0], (down, right), (0, 1)) - clip[2])[8:-8, 8:-8].mean()
                  for down in range(-4, 5) for right in range(-4, 5)}
        shifts[name] = min(errors, key=errors.get)
    assert shifts["Up"] == (-2, 0) and shifts["Down"] == (2, 0) and shifts["Still"] == (0, 0)
    assert shifts["Sideways"] in ((0, 2), (0, -2))
    still = motion10.make_clip("Still", 9, 2)
    assert (still == still[:1]).all()
    flicker = motion10.make_clip("Flicker", 9, 2).astype(float)
    middle = flicker[:, :, :, 0].mean()
    changed = np.sign(flicker[0] - middle) * np.sign(flicker[2] - middle)
    assert (changed < 0).mean() > 0.8 and (flicker[0] == flicker[4]).all()
    inward, outward = (motion10.make_clip(name, 9, 2).astype(float) for name in ("ZoomIn", "ZoomOut"))
    assert 1.1 < nearest_zoom(inward[0], inward[4]) < 1.45  # 1.27, but waves come and go meanwhile
    assert 1.1 < 1 / nearest_zoom(outward[0], outward[4]) < 1.45


def nearest_zoom(first, second):
    """The factor by which `first`, enlarged about the middle, fits `second` best, by nearest pixels."""
    places = np.arange(-8, 9)
    errors = {}
    for factor in np.arange(0.6, 1.6, 0.02):
        rows = np.rint(19.5 + places / factor).astype(int)
        errors[factor] = np.abs(first[rows][:, rows] - second[np.rint(19.5 + places).astype(int)][
            :, np.rint(19.5 + places).astype(int)]).mean()
    return min(errors, key=errors.get)


def single_frame_numbers(frame):
    """Numbers that one frame can give away: level and spread of each colour, contours of each direction and scale."""
    values = frame.astype(float)
    grey = values.mean(-1)
    waves = np.abs(np.fft.fft2(grey - grey.mean()))
    across, along = np.meshgrid(np.fft.fftfreq(40), np.fft.fftfreq(40))
    radius, upright = np.hypot(across, along), np.abs(across) > np.abs(along)
    bands = [waves[(radius > low) & (radius <= high)].sum() for low, high in ((0, .08), (.08, .13), (.13, .2), (.2, 1))]
    return np.array([*values.mean((0, 1)), *values.std((0, 1)), *bands, waves[upright].sum(), waves[~upright].sum(),
                     grey[:20].mean() - grey[20:].mean(), grey[10:30, 10:30].mean(), grey[10:30, 10:30].std()])


@pytest.fixture(scope="module")
def frame_numbers():
    """(place, class, group, number), means of two clips."""
    places = (0, 11, 23)
    clips = [[[motion10.make_clip(name, group, clip)[list(places)] for clip in (1, 2)] for group in range(1, 26)]
             for name in motion10.MOTIONS]
    return np.array([[[np.mean([single_frame_numbers(clip[place]) for clip in group], axis=0) for group in row]
                      for row in clips] for place in range(len(places))])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_frame_looks_the_same_in_all_classes(frame_numbers, place):
    """The classes' means of each number differ no more than chance has them."""
    numbers = frame_numbers[place]
    apart = numbers - numbers.mean(0)  # a group's look is shared by all classes
    scores = apart.mean(1) / (apart.std(1, ddof=1) / 5)
    assert np.abs(scores).max() < 5  # 150 values of t with 24 degrees of freedom
    assert np.sqrt((scores ** 2).mean()) < 1.35


def test_the_one_frame_test_can_fail():
    """Frames that are darker in one class by a thirtieth would be found."""
    rows = [np.array([single_frame_numbers(np.clip(motion10.make_clip("Spin", group, 1)[5] * factor, 0, 255))[:3]
                      for group in range(1, 26)]) for factor in (1.0, 29 / 30)]
    apart = (rows[0] - rows[1]) / 2
    assert (np.abs(apart.mean(0) / (apart.std(0, ddof=1) / 5)) > 5).all()


def test_two_renders_are_equal(small, tmp_path):
    assert motion10.render(str(tmp_path / "a")) and motion10.render(str(tmp_path / "b"))
    first = digests(tmp_path / "a")
    assert first == digests(tmp_path / "b") and len(first) == 7  # six videos and the version
    assert len(set(first.values())) == 7
    assert not motion10.render(str(tmp_path / "a"))


def test_several_at_once(small, tmp_path):
    results, errors = [], []

    def start():
        try:
            results.append(motion10.render(str(tmp_path / "raw")))
        except Exception as error:  # noqa: B902 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and sum(results) == 1 and len(results) == 4
    assert os.listdir(str(tmp_path / "raw")) == ["data"]  # nothing temporary is left
    assert len(digests(tmp_path / "raw")) == 7


def test_an_interrupted_render_leaves_nothing(small, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(motion10, "write_film", stop)
    with pytest.raises(KeyboardInterrupt):
        motion10.render(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


def test_a_file_that_comes_out_short_is_noticed(small, tmp_path, monkeypatch):
    make = motion10.make_clip
    monkeypatch.setattr(motion10, "make_clip", lambda *key: make(*key)[:0])
    with pytest.raises(OSError, match="incomplete.*disk has room"):
        motion10.render(str(tmp_path))
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("content", [None, "motion10 version 0\n"])
def test_a_folder_of_something_else_is_not_touched(small, tmp_path, content):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.avi").write_bytes(b"mine")
    if content:
        (tmp_path / "data" / "motion10.txt").write_text(content)
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="remove it.*or give --data-root"):
        motion10.render(str(tmp_path))
    assert digests(tmp_path) == before
