"""relations: the label is in both discs together, and in nothing else."""
import collections
import os

import numpy as np
import pytest

from data.clip_readers import VideoFile
from dataset import relations
from dataset.rendering import video_name, write_film
from dataset.specs import DATASETS, find_dataset, load_videos

STEPS = {0: (0, 2), 1: (-2, 0), 2: (0, -2), 3: (2, 0), None: (0, 0)}  # direction -> rows, columns in two frames


def directions(scene):
    return [disc.direction for disc in scene.discs]


def measured(frames, scene):
    """The discs' directions by the pixels alone: the shift over two frames that fits best within each disc."""
    grey = frames.astype(float).mean(-1)
    rows, columns = np.mgrid[:grey.shape[1], :grey.shape[2]]
    found = []
    for disc in scene.discs:
        near = np.hypot(columns - disc.centre[0], rows - disc.centre[1]) < 4
        errors = {way: np.mean([np.abs(np.roll(grey[t], step, (0, 1)) - grey[t + 2])[near].mean() for t in (0, 5, 13)])
                  for way, step in STEPS.items()}
        found.append(min(errors, key=errors.get))
    return found


def test_the_label_is_the_relation_of_the_directions():
    for group in (1, 25):
        for clip in range(1, relations.CLIPS_PER_GROUP + 1):
            turns = set()
            for relation in relations.RELATIONS:
                scene = relations.make_scene(relation, group, clip)
                first, second, third = directions(scene)
                turn = (second - first) % 4
                assert third is None and relations.relation_of(scene) == relation
                assert relation == {0: "Same", 1: "Across", 2: "Opposite", 3: "Across"}[turn]
                turns.add(turn)
            assert len(turns) == 3


def test_each_disc_alone_says_nothing():
    """In every class and group each of the two drifts to all four sides equally often."""
    for group in (1, 9):
        for relation in relations.RELATIONS:
            scenes = [relations.make_scene(relation, group, clip) for clip in range(1, relations.CLIPS_PER_GROUP + 1)]
            for place in (0, 1):
                counts = collections.Counter(directions(scene)[place] for scene in scenes)
                assert counts == {way: relations.CLIPS_PER_GROUP // 4 for way in range(4)}


def test_twins_differ_in_one_direction_only():
    for clip in (1, 6):
        twins = [relations.make_scene(relation, 3, clip) for relation in relations.RELATIONS]
        assert len({directions(scene)[1] for scene in twins}) == 3
        blind = [repr([disc._replace(direction=None) for disc in scene.discs] + [scene.backdrop, scene.tint,
                                                                                 directions(scene)[0]])
                 for scene in twins]
        assert len(set(blind)) == 1
        films = [relations.draw(scene) for scene in twins]
        assert all((film[0] == films[0][0]).all() for film in films)  # no first frame tells
        columns, rows = (np.rint(value) for value in twins[0].discs[1].centre)
        outside = np.hypot(*(np.mgrid[:40, :40] - np.array([rows, columns])[:, None, None])) > relations.RADIUS + 2
        assert all((film[:, outside] == films[0][:, outside]).all() for film in films)
        assert all((film[8] != films[0][8]).any() for film in films[1:])


def test_the_discs_are_distant_and_whole():
    scenes = [relations.make_scene("Same", group, clip) for group in (2, 24) for clip in range(1, 33)]
    centres = np.array([[disc.centre for disc in scene.discs] for scene in scenes])  # (films, 3, 2)
    assert np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1).min() >= 20  # half the picture's side
    assert np.linalg.norm(centres[:, :2] - centres[:, 2:], axis=2).min() >= 13  # no disc covers another
    assert centres.min() >= relations.RADIUS + 1 and centres.max() <= 39 - relations.RADIUS - 1
    assert len(np.unique(centres[:, 0, 0])) == len(scenes)


@pytest.mark.parametrize("relation", sorted(relations.RELATIONS))
def test_the_files_show_what_the_scene_says(tmp_path, relation):
    for clip in (1, 4, 6):
        scene = relations.make_scene(relation, 7, clip)
        made = relations.draw(scene)
        path = str(tmp_path / video_name(relation, 7, clip))
        write_film(path, made, relations.FRAMES_PER_SECOND)
        seen = VideoFile(path).read(range(relations.FRAMES))
        assert seen.shape == (16, 40, 40, 3) and np.abs(seen.mean(-1) - made.mean(-1)).mean() < 4
        assert measured(seen, scene) == directions(scene)
        mirrored = measured(seen[:, :, ::-1], scene._replace(
            discs=tuple(disc._replace(centre=(39 - disc.centre[0], disc.centre[1])) for disc in scene.discs)))
        turn = (mirrored[1] - mirrored[0]) % 4
        assert turn in relations.RELATIONS[relation]  # a mirrored film stays in its class
        assert os.path.getsize(path) * 75 * relations.CLIPS_PER_GROUP < 80e6


def test_the_same_films_every_time_and_others_elsewhere():
    film = relations.draw(relations.make_scene("Same", 5, 2))
    assert (film == relations.draw(relations.make_scene("Same", 5, 2))).all()
    for group, clip in ((5, 6), (6, 2)):
        assert (film != relations.draw(relations.make_scene("Same", group, clip))).any()
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
    assert not relations.render(str(tmp_path)) and videos.class_names == ["Across", "Opposite", "Same"]
    assert (tmp_path / "data" / "relations.txt").read_text() == relations.FILMS.version


def test_a_clip_fits_into_a_film():
    defaults = DATASETS["relations"].defaults
    assert relations.FRAMES >= (defaults["clip_length"] - 1) * defaults["train_frame_interval"] + 1
    assert relations.CLIPS_PER_GROUP % 8 == 0  # else the directions are not balanced
