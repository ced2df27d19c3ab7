"""Clips from rows: keyed draws, labels that stay with their frames, broken rows replaced and named."""
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from film_numbers import FILMS, FRAMES, decode_all, said_index, write_frames

from data import clip_dataset
from data.bad_videos import BadVideoBudgetExceeded
from data.clip_dataset import ClipBatch, ClipDataset, collate_clips
from data.clip_sampling import even_clip, random_clip
from data.randomness import noise_key, random_state
from data.transforms import EvalTransform, TrainAugmentation, cut_clip, whole_frame
from data.video_list import VideoFacts, VideoList

NAMES = sorted(FRAMES)
AUGMENTATION = TrainAugmentation(32, (32, 48))


class WholeFrames(EvalTransform):
    """Leaves the frames as they are, so that they can say their index."""

    def cut(self, height, width):
        return whole_frame(height, width)


@pytest.fixture
def broken_root(tmp_path):
    """Six films, of which the second, third and last are not readable."""
    for name in NAMES:
        shutil.copyfile(str(FILMS / name), str(tmp_path / name))
    (tmp_path / NAMES[1]).write_bytes(b"")
    (tmp_path / NAMES[2]).unlink()
    (tmp_path / NAMES[5]).write_text("text")
    return tmp_path


def training(root=FILMS, seed=1, labels=(10, 11, 12, 13, 14, 15)):
    return ClipDataset(VideoList(str(root), NAMES, labels), 4, 5, AUGMENTATION, seed, training=True)


def evaluation(root=FILMS, transform=None):
    return ClipDataset(VideoList(str(root), NAMES, range(6)), 4, 5, transform or WholeFrames(32, 32), 0, training=False)


def same(one, other):
    return np.array_equal(one.clip, other.clip) and one[1:] == other[1:]


def test_a_training_clip_follows_from_its_key():
    """The clip once more, from the pieces."""
    sample = training()[(3, 2)]
    assert sample.label == 12 and sample.index == 2 and sample.readable and sample.augmented and not sample.failures

    def states(stream):
        return random_state(1, 3, 2, stream)
    indices = random_clip(FRAMES[NAMES[2]], 4, 5, states("clip"))
    frames = np.stack(decode_all(FILMS / NAMES[2]))[indices][..., ::-1]
    assert np.array_equal(sample.clip, cut_clip(np.ascontiguousarray(frames), AUGMENTATION.cut(96, 128, states)))
    assert (sample.hls, sample.jitter) == AUGMENTATION.colour(states) and sample.noise_key == noise_key(1, 3, 2)


def test_same_key_same_clip_other_key_other_clip():
    one, other = training(), training()
    for key in ((0, 0), (0, 1), (7, 1)):
        other[(5, 5)]  # what was read before changes nothing
        assert same(one[key], other[key])
    assert not np.array_equal(one[(0, 1)].clip, one[(1, 1)].clip)
    assert one[(0, 1)].noise_key != one[(1, 1)].noise_key
    assert not np.array_equal(one[(0, 1)].clip, training(seed=2)[(0, 1)].clip)


def test_evaluation_takes_the_centre_clip():
    dataset = evaluation()
    assert len(dataset) == 6
    for row, name in enumerate(NAMES):
        sample = dataset[(0, row)]
        assert [said_index(frame) for frame in sample.clip] == even_clip(FRAMES[name], 4, 5, 1, 0)
        assert (sample.label, sample.index, sample.readable, sample.augmented) == (row, row, True, False)
        assert sample.hls == (0, 0, 0) and sample.jitter == (0.0, 0.0)
        assert same(sample, dataset[(9, row)])


def test_evaluation_with_several_clips():
    dataset = evaluation().with_clips(3)
    assert len(dataset) == 18 and len(evaluation()) == 6
    for clip in range(3):
        sample = dataset[(0, 3 * 4 + clip)]
        assert sample.index == 4 and sample.label == 4
        assert [said_index(frame) for frame in sample.clip] == even_clip(FRAMES[NAMES[4]], 4, 5, 3, clip)


def test_one_frame_repeated():
    for place in range(4):
        sample = evaluation().with_repeated_frame(place)[(0, 0)]
        assert [said_index(frame) for frame in sample.clip] == [even_clip(FRAMES[NAMES[0]], 4, 5)[place]] * 4


def test_raw_frames_and_the_lists_count(tmp_path):
    frames = decode_all(FILMS / "mjpeg.avi")
    write_frames(tmp_path / "a", frames[:30])
    write_frames(tmp_path / "b", frames[30:60])
    videos = VideoList(str(tmp_path), ["a", "b"], [0, 1], "rawframes", [16, 0])
    dataset = ClipDataset(videos, 4, 5, WholeFrames(32, 32), 0, training=False)
    assert [said_index(frame) for frame in dataset[(0, 0)].clip] == [0, 5, 10, 15]
    assert [said_index(frame) for frame in dataset[(0, 1)].clip] == [30 + i for i in even_clip(30, 4, 5)]


def following(seed, epoch, row):
    """The rows after `row` in the epoch's order, from whose end it goes on at the start."""
    order = random_state(seed, epoch, 0, "order").permutation(len(NAMES)).tolist()
    place = order.index(row)
    return order[place + 1:] + order[:place]


def test_a_broken_training_row_gives_way_to_the_next_of_the_epochs_order(broken_root):
    dataset, broken, taken = training(broken_root), (1, 2, 5), set()
    for epoch in range(8):
        for row in broken:
            others = following(1, epoch, row)
            place = next(i for i, other in enumerate(others) if other not in broken)
            sample = dataset[(epoch, row)]
            taken.add((row, sample.index))
            assert sample.index == others[place] and sample.label == 10 + others[place] and sample.readable
            assert [path for path, _ in sample.failures] == [
                str(broken_root / NAMES[bad]) for bad in [row] + others[:place]]
            assert same(sample, training(broken_root)[(epoch, row)])
            assert not np.array_equal(sample.clip, dataset[(epoch, others[place])].clip)  # the draws are its own
    assert taken == {(row, other) for row in broken for other in (0, 3, 4)}  # no neighbour is always the one doubled
    reasons = dict(dataset[(0, 1)].failures + dataset[(0, 2)].failures)
    assert "empty" in reasons[str(broken_root / NAMES[1])] and "No such file" in reasons[str(broken_root / NAMES[2])]


def expected_clip(name, indices, sample, epoch=0):
    frames = np.ascontiguousarray(np.stack(decode_all(FILMS / name))[indices][..., ::-1])
    return cut_clip(frames, AUGMENTATION.cut(96, 128, lambda stream: random_state(1, epoch, sample, stream)))


def test_replaced_frames_are_those_of_the_replacing_row(broken_root):
    row = next(row for row in following(1, 0, 1) if row not in (2, 5))
    indices = random_clip(FRAMES[NAMES[row]], 4, 5, random_state(1, 0, 1, "clip"))
    assert np.array_equal(training(broken_root)[(0, 1)].clip, expected_clip(NAMES[row], indices, 1))


def overstated(root=FILMS, name="mpeg4_gop12.avi", stated=200):
    """Four rows of a video whose list states more frames than it has."""
    return ClipDataset(VideoList(str(root), [name] * 4, [20, 21, 22, 23], "video", [stated] * 4), 4, 5, AUGMENTATION, 1,
                       training=True)


def test_a_clip_is_drawn_again_from_the_readable_part():
    epoch = next(epoch for epoch in range(9) if random_clip(200, 4, 5, random_state(1, epoch, 3, "clip"))[0] >= 72)
    again = random_clip(72, 4, 5, random_state(1, epoch, 3, "clip again"))
    sample = overstated()[(epoch, 3)]
    assert (sample.index, sample.label, sample.readable) == (3, 23, True)
    assert np.array_equal(sample.clip, expected_clip("mpeg4_gop12.avi", again, 3, epoch))
    (path, reason), = sample.failures  # and its file is named all the same
    assert path == str(FILMS / "mpeg4_gop12.avi") and "frame 72 of 200 cannot be decoded" in reason


def test_what_was_read_before_changes_no_second_draw():
    keys = [(epoch, row) for epoch in range(4) for row in range(4)]
    forward = {key: sample for dataset in [overstated()] for key, sample in zip(keys, map(dataset.__getitem__, keys))}
    dataset = overstated()
    for key in reversed(keys):
        assert same(dataset[key], forward[key]) and same(overstated()[key], forward[key])
    assert {bool(sample.failures) for sample in forward.values()} == {True, False}


def test_the_second_draw_is_the_last_one(tmp_path):
    """A folder of which frames 1 and 12 are missing: nothing before the first of them, so the next row."""
    for name in "ab":
        write_frames(tmp_path / name, decode_all(FILMS / "mjpeg.avi")[:16])
    for number in (1, 3, 9, 12, 16):
        (tmp_path / "a" / ("img_%05d.jpg" % number)).unlink()
    videos = VideoList(str(tmp_path), ["a", "b"], [0, 1], "rawframes", [16, 16])
    dataset = ClipDataset(videos, 4, 5, AUGMENTATION, 1, training=True)
    for epoch in range(20):
        sample = dataset[(epoch, 0)]
        assert (sample.index, len(sample.failures)) == (1, 1)
        assert sample.failures[0][0] == str(tmp_path / "a")


def test_training_gives_up_where_nothing_can_be_read(tmp_path, monkeypatch):
    with pytest.raises(BadVideoBudgetExceeded, match="6 videos on end cannot be read"):
        training(tmp_path)[(0, 0)]
    monkeypatch.setattr(clip_dataset, "MOST_TRIES", 2)
    with pytest.raises(BadVideoBudgetExceeded, match="2 videos on end .*in place"):
        training(tmp_path)[(0, 0)]


def test_a_broken_evaluation_row_is_counted_not_replaced(broken_root):
    sample = evaluation(broken_root, EvalTransform(32, 40))[(0, 5)]
    assert not sample.readable and sample.label == 5 and sample.index == 5
    assert sample.clip.shape == (4, 32, 32, 3) and not sample.clip.any()
    assert sample.failures[0][0] == str(broken_root / NAMES[5]) and "not a video" in sample.failures[0][1]


def test_a_broken_frame_names_its_file_and_counts_for_its_video(tmp_path):
    write_frames(tmp_path / "a", decode_all(FILMS / "mjpeg.avi")[:16])
    (tmp_path / "a" / "img_00011.jpg").write_bytes(b"")
    dataset = ClipDataset(VideoList(str(tmp_path), ["a"], [0], "rawframes"), 4, 5, EvalTransform(32, 40), 0, False)
    (path, reason), = dataset[(0, 0)].failures
    assert path == str(tmp_path / "a") and "img_00011.jpg: the file is empty" in reason


def test_frames_are_counted_once(monkeypatch):
    counted = []
    count = clip_dataset.open_clip

    def watched(path, kind, num_frames, facts):
        counted.append(num_frames)
        return count(path, kind, num_frames, facts)
    monkeypatch.setattr(clip_dataset, "open_clip", watched)
    dataset = training()
    dataset[(0, 5)], dataset[(1, 5)], pickle.loads(pickle.dumps(dataset))[(2, 5)]
    assert counted == [None, 70, 70] or counted == [None, 72, 72]


def test_a_clip_fetched_into_a_room_is_the_same(broken_root):
    room = np.full((4, 32, 32, 3), 77, np.uint8)
    for row in range(6):  # the broken ones too, whose place others take
        sample = training(broken_root).fetch((2, row), room)
        assert sample.clip is room and same(sample, training(broken_root)[(2, row)])
    dataset = evaluation(broken_root, EvalTransform(32, 40))
    assert not dataset.fetch((0, 5), room).clip.any()
    assert dataset[(0, 0)].clip is not room  # and later clips are their own again


def test_facts_are_held_against_the_file_each_time(tmp_path, monkeypatch):
    path = tmp_path / NAMES[0]
    shutil.copyfile(str(FILMS / NAMES[0]), str(path))
    status = os.stat(str(path))
    facts = VideoFacts(25, status.st_size, status.st_mtime_ns, ())
    videos = VideoList(str(tmp_path), [NAMES[0]], [0])
    monkeypatch.setattr(videos, "facts", lambda row: facts)
    dataset = ClipDataset(videos, 4, 5, WholeFrames(32, 32), 0, training=False)
    assert [said_index(frame) for frame in dataset[(0, 0)].clip] == even_clip(25, 4, 5)
    os.utime(str(path), (1, 1))
    for _ in range(2):  # counted anew, and that count stays
        assert [said_index(frame) for frame in dataset[(0, 0)].clip] == even_clip(FRAMES[NAMES[0]], 4, 5)


def test_collate():
    dataset = training()
    batch = collate_clips([dataset[(0, row)] for row in (4, 1, 3)])
    assert batch.clip.shape == (3, 4, 32, 32, 3) and batch.clip.dtype == torch.uint8
    assert batch.label.tolist() == [14, 11, 13] and batch.index.tolist() == [4, 1, 3]
    assert batch.hls.shape == (3, 3) and batch.hls.dtype == torch.int64
    assert batch.jitter.shape == (3, 2) and batch.jitter.dtype == torch.float32
    assert batch.noise_key.tolist() == [noise_key(1, 0, row) for row in (4, 1, 3)]
    assert batch.readable.tolist() == [True] * 3 and batch.readable.dtype == torch.bool
    assert batch.augmented is True and batch.failures == ()
    assert np.array_equal(batch.clip[1].numpy(), dataset[(0, 1)].clip)


def test_collate_gathers_failures(broken_root):
    dataset = evaluation(broken_root, EvalTransform(32, 40))
    batch = collate_clips([dataset[(0, row)] for row in range(6)])
    assert isinstance(batch, ClipBatch) and batch.augmented is False
    assert batch.readable.tolist() == [True, False, False, True, True, False]
    assert [path for path, _ in batch.failures] == [str(broken_root / NAMES[row]) for row in (1, 2, 5)]


def test_transform_must_fit_the_purpose():
    videos = VideoList(str(FILMS), NAMES, range(6))
    with pytest.raises(ValueError, match="not EvalTransform"):
        ClipDataset(videos, 4, 5, EvalTransform(32, 40), 0, training=True)
    with pytest.raises(ValueError, match="not TrainAugmentation"):
        ClipDataset(videos, 4, 5, AUGMENTATION, 0, training=False)
