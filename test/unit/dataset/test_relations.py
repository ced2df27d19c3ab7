"""relations: the label is in both discs together, and in neither alone."""
import collections
import os

import numpy as np
import pytest

from data.clip_readers import VideoFile
from dataset import relations
from dataset.rendering import video_name, write_film
from dataset.specs import DATASETS, find_dataset, load_videos

CLIPS = range(1, relations.CLIPS_PER_GROUP + 1)


def levels(frames, centres):
    """Mean grey level within each disc in each frame: (discs, T)."""
    rows, columns = np.mgrid[:frames.shape[1], :frames.shape[2]]
    grey = frames.astype(float).mean(-1)
    return np.array([grey[:, np.hypot(columns - x, rows - y) < 5].mean(1) for x, y in centres])


def relation_seen(frames, centres):
    """The class by the pixels alone: how the levels of the first two discs go with each other."""
    first, second = levels(frames, centres)[:2]
    with_each_other = np.corrcoef(first, second)[0, 1]
    return "Together" if with_each_other > 0.7 else "Opposite" if with_each_other < -0.7 else "Quarter"


def test_the_label_is_the_relation_of_the_beginnings():
    for group in (1, 25):
        for clip in CLIPS:
            for relation in relations.RELATIONS:
                scene = relations.make_scene(relation, group, clip)
                first, second = scene.quarters
                assert relations.relation_of(scene) == relation
                assert relation == {0: "Together", 1: "Quarter", 2: "Opposite", 3: "Quarter"}[(second - first) % 4]


def test_each_disc_alone_says_nothing():
    """In every class and group each of the two begins at all quarters equally often."""
    for group in (1, 9):
        for relation in relations.RELATIONS:
            scenes = [relations.make_scene(relation, group, clip) for clip in CLIPS]
            for place in (0, 1):
                counts = collections.Counter(scene.quarters[place] for scene in scenes)
                assert counts == {quarter: relations.CLIPS_PER_GROUP // 4 for quarter in range(4)}


def test_twins_differ_in_one_disc_only():
    for clip in (1, 6):
        twins = [relations.make_scene(relation, 3, clip) for relation in relations.RELATIONS]
        assert len({scene.quarters[1] for scene in twins}) == 3
        assert len({repr(scene._replace(quarters=scene.quarters[:1])) for scene in twins}) == 1
        films = [relations.draw(scene) for scene in twins]
        columns, rows = twins[0].centres[1]
        outside = np.hypot(*(np.mgrid[:40, :40] - np.array([rows, columns])[:, None, None])) > relations.RADIUS + 1
        assert all((film[:, outside] == films[0][:, outside]).all() for film in films)
        seen = [levels(film, scene.centres)[1] for film, scene in zip(films, twins)]
        for other in seen[1:]:  # the same levels, begun elsewhere
            assert np.abs(np.sort(other) - np.sort(seen[0])).max() < 1 and np.abs(other - seen[0]).max() > 60


def test_the_discs_are_distant_and_whole():
    centres = np.array([relations.make_scene("Together", group, clip).centres for group in (2, 24) for clip in CLIPS])
    assert np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1).min() >= 20  # half the picture's side
    assert np.linalg.norm(centres[:, :2] - centres[:, 2:], axis=2).min() >= 13  # no disc covers another
    assert centres.min() >= relations.RADIUS + 1 and centres.max() <= 39 - relations.RADIUS - 1
    assert len(np.unique(centres[:, 0, 0])) == len(centres)


@pytest.mark.parametrize("relation", sorted(relations.RELATIONS))
def test_the_files_show_what_the_scene_says(tmp_path, relation):
    for clip in (1, 4, 6):
        scene = relations.make_scene(relation, 7, clip)
        made = relations.draw(scene)
        path = str(tmp_path / video_name(relation, 7, clip))
        write_film(path, made, relations.FRAMES_PER_SECOND)
        seen = VideoFile(path).read(range(relations.FRAMES))
        assert seen.shape == (16, 40, 40, 3) and np.abs(seen.mean(-1) - made.mean(-1)).mean() < 4
        assert relation_seen(seen, scene.centres) == relation
        assert relation_seen(seen[:, :, ::-1], [39, 0] + [-1, 1] * scene.centres) == relation
        assert np.ptp(levels(seen, scene.centres), axis=1).round(-1).tolist() == pytest.approx([170, 170, 0], abs=20)
        assert os.path.getsize(path) * 75 * relations.CLIPS_PER_GROUP < 80e6


def test_the_same_films_every_time_and_others_elsewhere():
    film = relations.draw(relations.make_scene("Together", 5, 2))
    assert (film == relations.draw(relations.make_scene("Together", 5, 2))).all()
    for group, clip in ((5, 6), (6, 2)):
        assert (film != relations.draw(relations.make_scene("Together", group, clip))).any()
    assert film.dtype == np.uint8 and 20 < film.mean() < 235 and film.std() > 15


def test_balanced_and_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(relations, "make_scene", lambda *key: None)
    monkeypatch.setattr(relations, "draw", lambda scene: None)
    monkeypatch.setattr(relations, "write_film", lambda path, clip, rate: open(path, "wb").close())
    spec = find_dataset("relations")
    clips = relations.CLIPS_PER_GROUP
    for split in (1, 2, 3):
        videos = load_videos(spec, str(tmp_path), split)
        assert np.bincount(videos.train.labels).tolist() == [18 * clips] * 3
        assert np.bincount(videos.test.labels).tolist() == [7 * clips] * 3
        train, test = ({part.relative(row).rsplit("_g", 1)[1][:2] for row in range(len(part))}
                       for part in (videos.train, videos.test))
        assert len(train) == 18 and len(test) == 7 and not train & test
    assert not relations.render(str(tmp_path)) and videos.class_names == ["Opposite", "Quarter", "Together"]
    assert (tmp_path / "data" / "relations.txt").read_text() == relations.FILMS.version


def test_a_clip_fits_into_a_film():
    defaults = DATASETS["relations"].defaults
    assert relations.FRAMES >= (defaults["clip_length"] - 1) * defaults["train_frame_interval"] + 1
    assert relations.CLIPS_PER_GROUP % 8 == 0  # else the beginnings are not balanced
