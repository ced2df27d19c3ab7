"""Optical flow from its files to the batch: which file is which channel, mirrors, and what cannot be read."""
import os
import shutil

import cv2
import numpy as np
import pytest
import torch
from conftest import write_video
from test_device_transforms import batch_of

from data.batch_mix import BatchMix, MixOptions
from data.clip_dataset import ClipDataset, collate_clips
from data.clip_readers import FlowFrames, open_clip
from data.clip_sampling import even_clip, random_clip
from data.device_transforms import DeviceTransform, transform_in_blocks
from data.modalities import MODALITIES, NEGATED
from data.randomness import random_state
from data.reader import UnreadableClip
from data.streams import ClipGeometry, ClipStreams, Share
from data.transforms import Cut, EvalTransform, TrainAugmentation, Window, cut_clip
from data.video_list import VideoFacts, VideoList
from dataset.frames import FrameTask, write_frames

FRAMES = 7  # of flow


def write_flow(folder, start=0, size=(24, 32)):
    """Flat pictures, which JPEG keeps as they are: level 100 + start + i to the right, 50 + start + 2 i down."""
    folder.mkdir(parents=True)
    for number in range(1, FRAMES + 1):
        for name, level in (("x", 99 + number), ("y", 48 + 2 * number)):
            cv2.imwrite(str(folder / ("flow_%s_%05d.jpg" % (name, number))), np.full(size, start + level, np.uint8))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_flow(tmp_path / "video")


def film_of_a_square(path, move, mirrored=False):
    """A bright square on fixed noise."""
    frames = []
    noise = np.random.RandomState(5).randint(0, 120, (48, 48, 3)).astype(np.uint8)
    for number in range(6):
        frame = noise.copy()
        frame[18:30, 14 + move * number:26 + move * number] = 250
        frames.append(frame[:, ::-1] if mirrored else frame)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (48, 48))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame))
    writer.release()
    return path


def test_x_and_y_are_the_channels_and_come_in_any_order(folder):
    reader = open_clip(str(folder), "flow")
    assert isinstance(reader, FlowFrames) and reader.num_frames == FRAMES
    clip = reader.read([6, 0, 3, 0])
    assert clip.shape == (4, 24, 32, 2) and clip.dtype == np.uint8 and clip.flags.c_contiguous
    for frame, index in zip(clip, (6, 0, 3, 0)):
        assert (frame[..., 0] == 100 + index).all() and (frame[..., 1] == 50 + 2 * index).all()


def test_a_mirror_turns_x_alone_around(folder):
    ramp = np.repeat(np.arange(32, dtype=np.uint8)[None] * 6, 24, 0)
    cv2.imwrite(str(folder / "flow_x_00001.jpg"), ramp, [cv2.IMWRITE_JPEG_QUALITY, 100])
    reader = FlowFrames(str(folder))
    clip, flipped = (reader.read([0, 1], lambda high, wide, flip=flip: Cut(32, 24, Window(4, 2, 20, 16), flip))
                     for flip in (False, True))
    assert np.array_equal(flipped[..., 1], clip[..., 1][..., ::-1]) and clip[0, 0, 0, 0] < clip[0, 0, 19, 0]
    total = flipped[..., 0].astype(int) + clip[..., 0][..., ::-1]
    still = clip[..., 0][..., ::-1] == 128
    assert (total[~still] == 255).all() and (total[still] == 256).all()
    assert np.array_equal(cut_clip(reader.read([0, 1]), Cut(32, 24, Window(4, 2, 20, 16), True)), flipped)


def test_a_square_that_moves_right_moves_left_in_the_mirror(tmp_path):
    clips = []
    for name, mirrored in (("right", False), ("left", True)):
        film = film_of_a_square(tmp_path / (name + ".avi"), 3, mirrored)
        assert write_frames(FrameTask(str(film), str(tmp_path / name), False, "dis", 100, 0)) == ""
        clips.append(FlowFrames(str(tmp_path / name)).read(range(5)))
    right, left = clips  # five flows of six frames
    with pytest.raises(UnreadableClip, match="has 5"):
        FlowFrames(str(tmp_path / "right")).read([5])
    flipped = cut_clip(right, Cut(48, 48, Window(0, 0, 48, 48), True))
    square = [np.s_[frame, 20:28, 16 + 3 * frame:24 + 3 * frame] for frame in range(5)]
    pixels = np.array([(right[place].reshape(-1, 2).mean(0) - 127.5) / 6.375 for place in square])
    assert pixels[:, 0] == pytest.approx(np.full(5, 3), abs=0.7) and np.abs(pixels[:, 1]).max() < 0.7
    for frame, (time, high, wide) in enumerate(square):
        mirror = np.s_[time, high, 48 - wide.stop:48 - wide.start]
        assert right[square[frame]][..., 0].min() > 128 > flipped[mirror][..., 0].max()
        assert np.abs(flipped[mirror].astype(float) - left[mirror]).mean() < 3  # what flow of the mirrored film is


def test_the_lists_count_comes_before_the_folders(folder):
    (folder / "flow_y_00007.jpg").unlink()
    assert FlowFrames(str(folder)).num_frames == 6
    reader = FlowFrames(str(folder), 7, VideoFacts(99, 0, os.stat(str(folder)).st_mtime_ns, ()))
    assert reader.num_frames == 7 and reader.facts is None  # an index counts the pictures
    with pytest.raises(UnreadableClip, match="No such file") as caught:
        reader.read([0, 6])
    assert caught.value.path.endswith("flow_y_00007.jpg") and caught.value.readable == 6


@pytest.mark.parametrize("change, reason", [
    (lambda f: [p.unlink() for p in f.glob("flow_y_*")], "no frame named like flow_y_00001.jpg"),
    (lambda f: (f / "flow_x_00003.jpg").unlink(), "6 frames, but flow_x_00003.jpg is missing"),
    (lambda f: (f / "flow_y_00002.jpg").write_text("text"), "flow_y_00002.jpg: not a JPEG"),
    (lambda f: cv2.imwrite(str(f / "flow_y_00002.jpg"), np.zeros((9, 7), np.uint8)), "not that of flow_x_00002.jpg"),
    (lambda f: [cv2.imwrite(str(f / ("flow_%s_00002.jpg" % name)), np.zeros((9, 7), np.uint8)) for name in "xy"],
     "size changes from 32x24 to 7x9"), (lambda f: shutil.rmtree(str(f)), "cannot be listed"),
])
def test_damaged_flow(folder, change, reason):
    change(folder)
    with pytest.raises(UnreadableClip, match=reason):
        FlowFrames(str(folder)).read([0, 1])


def test_pictures_in_colour_are_read_as_grey(folder):
    cv2.imwrite(str(folder / "flow_x_00001.jpg"), np.full((24, 32, 3), 77, np.uint8))
    assert (FlowFrames(str(folder)).read([0])[..., 0] == 77).all()


def test_a_training_clip_follows_from_its_key_and_keeps_its_colours(tmp_path):
    for name in "ab":
        write_flow(tmp_path / name, 20)
    augmentation, flips = TrainAugmentation(16, (16, 20)), set()
    dataset = ClipDataset(VideoList(str(tmp_path), ["a", "b"], [0, 1], "flow"), 3, 2, augmentation, 1, training=True)
    assert dataset.clip_shape == (3, 16, 16, 2)
    for epoch in range(8):
        sample = dataset[(epoch, 1)]

        def states(stream, epoch=epoch):
            return random_state(1, epoch, 1, stream)
        cut = augmentation.cut(24, 32, states)
        x = np.array(random_clip(FRAMES, 3, 2, states("clip"))) + 120
        assert sample.clip.shape == (3, 16, 16, 2) and (sample.clip[..., 0].reshape(3, -1).T == (
            NEGATED[x] if cut.flip else x)).all() and (sample.clip[:, 0, 0, 1] == 2 * x - 170).all()
        assert not sample.augmented and (sample.hls, sample.jitter) == ((0, 0, 0), (0.0, 0.0))
        flips.add(cut.flip)
    assert flips == {False, True}


def test_an_evaluation_clip_and_one_that_cannot_be_read(tmp_path):
    write_flow(tmp_path / "a")
    videos = VideoList(str(tmp_path), ["a", "gone"], [0, 1], "flow")
    dataset = ClipDataset(videos, 3, 2, EvalTransform(16, 20), 0, training=False)
    assert dataset[(0, 0)].clip[:, 8, 8, 0].tolist() == [100 + index for index in even_clip(FRAMES, 3, 2)]
    black = dataset[(0, 1)]
    assert black.clip.shape == (3, 16, 16, 2) and not black.readable and len(black.failures) == 1


def test_batches_of_flow_by_worker_processes_are_those_without(tmp_path):
    for name in "abcd":
        write_flow(tmp_path / name, ord(name) % 10)
    videos = VideoList(str(tmp_path), list("abcd"), range(4), "flow")
    batches = []
    for workers in (0, 1):
        streams = ClipStreams(videos, videos, ClipGeometry(3, 2, 2, 16, (16, 20), 20),
                              Share(0, 1, 2, 2, workers, False), 1)
        batches.append([batch.clip.clone() for batch in streams.training(0, 0, 2)])
        batches[-1] += [batch.clip.clone() for batch in streams.evaluation()]
        streams.close()
    assert batches[0][0].shape == (2, 3, 16, 16, 2)
    assert all(torch.equal(one, other) for one, other in zip(*batches)) and len(batches[1]) == 4


def test_what_the_network_sees_by_hand():
    clips = np.random.RandomState(1).randint(0, 256, (2, 3, 8, 6, 2)).astype(np.uint8)
    batch, expected = batch_of(clips, augmented=False), (clips.astype(float) - 128) * 0.0167
    out = DeviceTransform(modality="flow")(batch)
    assert out.shape == (2, 2, 3, 8, 6) and out.is_contiguous()
    assert np.abs(out.numpy() - expected.transpose(0, 4, 1, 2, 3)).max() < 1e-5
    again = torch.empty_like(out)
    transform_in_blocks(batch, again, MODALITIES["flow"])
    assert torch.equal(again, out)
    with pytest.raises(AssertionError):
        DeviceTransform()(batch)


def test_a_batch_of_real_flow(tmp_path):
    write_video(tmp_path / "a.avi", 1, (2, 0), frames=6)
    write_frames(FrameTask(str(tmp_path / "a.avi"), str(tmp_path / "a"), True, "dis", 95, 0))
    dataset = ClipDataset(VideoList(str(tmp_path), ["a"], [0], "flow", [5]), 2, 2, EvalTransform(32, 40), 0, False)
    out = DeviceTransform(modality="flow")(collate_clips([dataset[(0, 0)]]))
    assert out.shape == (1, 2, 2, 32, 32) and out.abs().max() <= 128 * 0.0167 + 1e-6


def test_flow_is_erased_by_levels_of_its_own_and_mixed_as_any_clip():
    clip = torch.zeros(2, 2, 3, 40, 40)
    clip[1] = 1.0
    erased = BatchMix(MixOptions(random_erasing=1.0), 3, 1, modality="flow")(clip.clone(), torch.tensor([0, 1]), 1)[0]
    levels = erased[0][erased[0] != 0] / 0.0167 + 128
    assert -1e-3 < levels.min() < 5 and 250 < levels.max() < 255 and levels.numel() > 2 * 3 * 0.019 * 1600
    mixed, target = BatchMix(MixOptions(mixup=0.8), 3, 1, modality="flow")(clip.clone(), torch.tensor([0, 1]), 1)
    share = target[0, 0].item()
    assert mixed.shape == clip.shape and mixed[0].unique().item() == pytest.approx(1 - share, abs=1e-6)
