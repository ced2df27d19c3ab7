"""python -m dataset.pack: what lies in the store, the same bytes after any stop, and what is refused."""
import errno
import os
import shutil
import signal
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import write_video

from data import packed_index
from data.clip_dataset import ClipDataset
from data.clip_readers import VideoFile
from data.packed_index import read_index
from data.transforms import EvalTransform, TrainAugmentation
from dataset import pack as command
from dataset import packing
from dataset.packing_source import Options, collect
from dataset.pictures import jpeg_of, shrunk
from dataset.specs import find_dataset, load_videos

FOLDER = find_dataset("folder")
SHARD_BYTES = 300000  # a few shards


@pytest.fixture
def root(tiny_videos, tmp_path):
    shutil.copytree(str(tiny_videos), str(tmp_path / "data"))
    return tmp_path / "data"


def source_of(root, **options):
    return collect(FOLDER, str(root), None, "auto", Options(**dict(dict(short_side=256, quality=90, shard_size=1),
                                                                   **options)))[0]


def packed(root, folder, workers=2):
    source = source_of(root)
    for _ in packing.pack(source, str(folder), SHARD_BYTES, workers):
        pass
    return read_index(str(folder))


def files_of(folder):
    return {path.name: path.read_bytes() for path in Path(str(folder)).iterdir() if path.is_file()}


def run(*argv):
    return command.main([str(word) for word in argv])


def test_the_command_packs_and_says_what_it_costs(root, tmp_path, capsys):
    store = tmp_path / "store"
    assert run("folder", "--data-root", root, "--output", store, "--workers", 2) == 0
    shown = capsys.readouterr().out
    assert "27 videos, 540 frames" in shown and "1 shard(s)" in shown
    size = (store / "shard-00000.tar").stat().st_size
    videos = sum(path.stat().st_size for path in root.rglob("*.avi"))
    assert "%.2f times as much" % (size / videos) in shown
    assert sorted(files_of(store)) == ["packed.zip", "shard-00000.tar"]
    assert run("folder", "--data-root", root, "--output", store) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert run("folder", "--output", store, "--verify") == 0
    assert "all 540 frames are sound" in capsys.readouterr().out


def test_frames_are_the_videos_frames(root, tmp_path):
    packed(root, tmp_path / "store")
    own, videos = load_videos(FOLDER, str(tmp_path / "store")), load_videos(FOLDER, str(root))
    assert own.class_names == videos.class_names == ["down", "left", "up"] and own.train.kind == "packed"
    for part, of_part in ((own.train, videos.train), (own.test, videos.test)):
        assert part.labels.tolist() == of_part.labels.tolist()
        for row in range(len(part)):
            assert part.relative(row).endswith(of_part.relative(row))
    frames = VideoFile(videos.train.path(4)).read([3, 19])
    clip = own.train.open(4).read([3, 19])
    for frame, got in zip(frames, clip):
        coded = jpeg_of(shrunk(np.ascontiguousarray(frame[:, :, ::-1]), 256), 90)
        assert np.array_equal(cv2.imdecode(np.frombuffer(coded, np.uint8), 1)[:, :, ::-1], got)
    assert np.abs(frames.astype(int) - clip).mean() < 12


def test_the_same_key_draws_the_same_clip(root, tmp_path):
    packed(root, tmp_path / "store")
    sets = [ClipDataset(load_videos(FOLDER, str(place)).train, 4, 3, TrainAugmentation(32, (32, 40)), 7, training=True)
            for place in (root, tmp_path / "store")]
    for key in ((0, 3), (2, 17)):
        one, other = sets[0][key], sets[1][key]
        assert (one.label, one.index, one.hls, one.jitter, one.noise_key) == (
            other.label, other.index, other.hls, other.jitter, other.noise_key)
        assert np.abs(one.clip.astype(int) - other.clip).mean() < 12


def test_shards_are_tar_files_of_raw_frames(root, tmp_path):
    index = packed(root, tmp_path / "store")
    assert len(index.shards) > 2 and (index.shards["bytes"] < SHARD_BYTES + 2048).all()
    for number in range(len(index.shards)):
        with tarfile.open(packed_index.shard_file(str(tmp_path / "store"), number)) as archive:
            assert archive.getnames()[-1] == "frames.bin"
            archive.extractall(str(tmp_path / "frames"))
    os.unlink(str(tmp_path / "frames" / "frames.bin"))
    again = load_videos(FOLDER, str(tmp_path / "store"))
    assert sorted(os.listdir(str(tmp_path / "frames" / "train"))) == ["down", "left", "up"]
    (tmp_path / "frames" / "rawframes").mkdir()
    for part in ("train", "test"):
        (tmp_path / "frames" / part).rename(tmp_path / "frames" / "rawframes" / part)
    frames = load_videos(FOLDER, str(tmp_path / "frames"), source="rawframes")
    dataset, raw = (ClipDataset(part, 4, 3, EvalTransform(32, 36), 0, training=False)
                    for part in (again.test, frames.test))
    assert np.array_equal(dataset[0, 5].clip, raw[0, 5].clip)


def test_training_videos_are_mixed_and_come_first(root, tmp_path):
    index = packed(root, tmp_path / "store")
    parts = [os.fsdecode(name).split("/")[-3] for name in index.names]
    assert parts == ["train"] * 18 + ["test"] * 9
    classes = [os.fsdecode(name).split("/")[-2] for name in index.names[:18]]
    assert classes != sorted(classes)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_processes_gives_the_same_bytes(root, tmp_path, workers):
    packed(root, tmp_path / "one", 2)
    packed(root, tmp_path / "other", workers)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


def killed(root, folder, most):
    """A command that is killed when it has packed so many videos."""
    source = source_of(root)
    child = os.fork()
    if not child:
        for done, _ in packing.pack(source, str(folder), SHARD_BYTES, 2):
            if done == most:
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def test_after_kill_9_the_same_command_gives_the_same_bytes(root, tmp_path, monkeypatch):
    packed(root, tmp_path / "whole")
    killed(root, tmp_path / "store", 15)
    left = sorted(os.listdir(str(tmp_path / "store")))
    assert "shard-00000.tar" in left and "packed.zip" not in left
    with pytest.raises(FileNotFoundError, match="is not finished\n.*the same python -m dataset.pack command again"):
        load_videos(FOLDER, str(tmp_path / "store"))
    first = os.stat(str(tmp_path / "store" / "shard-00000.tar"))
    tasks = []
    monkeypatch.setattr(packing, "_tasks", lambda *words, make=packing._tasks: tasks.extend(make(*words)) or tasks)
    packed(root, tmp_path / "store")
    assert 0 < tasks[0].video < 15  # finished shards were not made again
    assert os.stat(str(tmp_path / "store" / "shard-00000.tar")).st_mtime_ns == first.st_mtime_ns
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("change", ["cut journal", "noise in journal", "lost shard", "cut shard"])
def test_what_a_stop_left_damaged_is_made_again(root, tmp_path, change):
    packed(root, tmp_path / "whole")
    store = tmp_path / "store"
    killed(root, store, 26)
    journal = store / "packing.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) > 3
    if change == "cut journal":
        journal.write_bytes(b"".join(lines)[:-7])
    elif change == "noise in journal":
        journal.write_bytes(b"".join(lines[:2]) + lines[2].replace(b"0", b"1") + b"".join(lines[3:]))
    elif change == "lost shard":
        (store / "shard-00001.tar").unlink()
    else:
        (store / "shard-00000.tar").write_bytes(b"short")
    packed(root, store)
    assert files_of(store) == files_of(tmp_path / "whole")


def test_broken_videos_are_left_out_and_count_as_failures(root, tmp_path, capsys):
    store = tmp_path / "store"
    train = load_videos(FOLDER, str(root)).train
    Path(train.path(2)).write_bytes(b"no film")
    cut = Path(train.path(7)).read_bytes()
    Path(train.path(7)).write_bytes(cut[:len(cut) // 2])
    assert run("folder", "--data-root", root, "--output", store) == 0
    shown = capsys.readouterr().out
    assert "broken, left out: 1" in shown and "%s: not a video file" % train.relative(2) in shown
    videos = load_videos(FOLDER, str(store))
    assert len(videos.train) == 18 and any("1 of 27 videos could not be packed" in note for note in videos.notes)
    assert 0 < videos.train.open(7).num_frames < 20
    dataset = ClipDataset(videos.train, 4, 3, TrainAugmentation(32, (32, 40)), 7, training=True)
    (path, reason), = dataset[0, 2].failures
    assert path == videos.train.path(2) and reason.startswith("when it was packed: not a video file")


def test_a_video_that_crashes_its_decoder_costs_itself_alone(root, tmp_path, monkeypatch):
    bad = load_videos(FOLDER, str(root)).train.path(2)
    work = packing.pack_video

    def crashing(task):
        return os.kill(os.getpid(), signal.SIGKILL) if task.path == bad else work(task)
    monkeypatch.setattr(packing, "pack_video", crashing)
    index = packed(root, tmp_path / "store")
    (video, reason), = index.problems.items()
    assert os.fsdecode(index.names[video]) in bad and "the decoder failed: its process ended" in reason


def test_nothing_that_can_be_read(tmp_path, capsys):
    for part in ("train", "test"):
        (tmp_path / "data" / part / "one").mkdir(parents=True)
        (tmp_path / "data" / part / "one" / "a.avi").write_bytes(b"no film")
    assert run("folder", "--data-root", tmp_path / "data", "--output", tmp_path / "store") == 2
    assert "no video could be read: not a video file" in capsys.readouterr().err


def touched(path):
    os.utime(str(path), (1, 1))


def longer(path):
    path.write_bytes(path.read_bytes() + b"0")


@pytest.mark.parametrize("change", [touched, longer])
def test_a_store_whose_source_changed_is_refused(root, tmp_path, change, capsys):
    store = tmp_path / "store"
    assert run("folder", "--data-root", root, "--output", store) == 0
    path = Path(load_videos(FOLDER, str(root)).train.path(4))
    change(path)
    with pytest.raises(ValueError, match="does not fit its source any more: .*%s has changed" % path.name):
        load_videos(FOLDER, str(store))
    for words in ((), ("--verify",)):
        assert run("folder", "--data-root", root, "--output", store, *words) == 2
        assert "changed" in capsys.readouterr().err
    path.unlink()
    assert len(load_videos(FOLDER, str(store)).train) == 18  # what was removed is no change
    shutil.rmtree(str(root))
    assert len(load_videos(FOLDER, str(store)).train) == 18


def test_going_on_with_another_source_or_other_options_is_refused(root, tmp_path):
    store = tmp_path / "store"
    killed(root, store, 15)
    for options, words in ((dict(quality=80), "the options are others .*quality 90.*now .*quality 80"),
                           (dict(short_side=32), "the options are others")):
        with pytest.raises(packing.StoreExists, match=words):
            next(packing.pack(source_of(root, **options), str(store), SHARD_BYTES, 1))
    touched(load_videos(FOLDER, str(root)).train.path(4))
    with pytest.raises(packing.StoreExists, match="videos have changed"):
        next(packing.pack(source_of(root), str(store), SHARD_BYTES, 1))
    os.unlink(load_videos(FOLDER, str(root)).train.path(4))
    with pytest.raises(packing.StoreExists, match="its lists .* are others"):
        next(packing.pack(source_of(root), str(store), SHARD_BYTES, 1))


def test_a_folder_of_other_things_and_a_second_command_are_refused(root, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shard-00000.tar").write_bytes(b"mine")
    assert run("folder", "--data-root", root, "--output", tmp_path / "other") == 2
    assert "holds something already" in capsys.readouterr().err
    assert (tmp_path / "other" / "shard-00000.tar").read_bytes() == b"mine"
    running = packing.pack(source_of(root), str(tmp_path / "store"), SHARD_BYTES, 1)
    next(running)
    assert run("folder", "--data-root", root, "--output", tmp_path / "store") == 2
    assert "another command is packing" in capsys.readouterr().err
    running.close()


def test_a_full_disk_is_said_and_the_command_goes_on_later(root, tmp_path, monkeypatch, capsys):
    packed(root, tmp_path / "whole")

    def full(source, target, size, copy=shutil.copyfileobj):
        if target.tell() > SHARD_BYTES // 2 and "shard-00001" in target.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target.name)
        copy(source, target, size)
    monkeypatch.setattr(packing.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        packed(root, tmp_path / "store")
    assert "packed.zip" not in files_of(tmp_path / "store")
    monkeypatch.undo()
    packed(root, tmp_path / "store")
    assert files_of(tmp_path / "store") == files_of(tmp_path / "whole")
    monkeypatch.setattr(packing, "pack_video", lambda task: packing.Packed(b"", 0, "", (errno.ENOSPC, "segment: full")))
    assert run("folder", "--data-root", root, "--output", tmp_path / "third") == 2
    assert "segment: full" in capsys.readouterr().err


def test_verifying_names_what_is_damaged(root, tmp_path, capsys):
    store = tmp_path / "store"
    packed(root, store)
    data = bytearray((store / "shard-00001.tar").read_bytes())
    data[5000] ^= 1
    (store / "shard-00001.tar").write_bytes(data)
    assert run("folder", "--output", store, "--verify", "--workers", 1) == 1
    shown = capsys.readouterr().out
    assert "shard-00001.tar: frame" in shown and "1 of 27 videos are damaged" in shown
    (store / "shard-00001.tar").write_bytes(data[:-1])
    assert run("folder", "--output", store, "--verify") == 2
    assert "shard-00001.tar has" in capsys.readouterr().err


def sampling_of(jpeg):
    place = jpeg.index(b"\xff\xc0")
    return [jpeg[place + 11 + 3 * part] for part in range(3)]


@pytest.mark.parametrize("size, short_side, expected", [
    ((96, 128), 48, (48, 64)), ((128, 96), 48, (64, 48)), ((96, 128), 96, (96, 128)), ((40, 50), 256, (40, 50))])
def test_frames_are_scaled_down_and_never_up(size, short_side, expected):
    frame = cv2.GaussianBlur(np.random.RandomState(0).randint(0, 256, size + (3,)).astype(np.uint8), (9, 9), 0)
    jpeg = jpeg_of(shrunk(frame, short_side), 90)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)
    assert image.shape[:2] == expected and sampling_of(jpeg) == [0x22, 0x11, 0x11]  # 4:2:0
    assert len(jpeg_of(shrunk(frame, short_side), 50)) < len(jpeg)


def test_raw_frames_can_be_packed_too(tmp_path):
    frames = [np.full((48, 64, 3), (30, 90, 10 * number), np.uint8) for number in range(12)]
    for part in ("train", "test"):
        for name in ("one", "two"):
            folder = tmp_path / "data" / "rawframes" / part / name / "v1"
            folder.mkdir(parents=True)
            for number, frame in enumerate(frames, 1):
                cv2.imwrite(str(folder / ("img_%05d.jpg" % number)), frame)
    assert run("folder", "--data-root", tmp_path / "data", "--output", tmp_path / "store", "--short-side", 32) == 0
    clip = load_videos(FOLDER, str(tmp_path / "store")).train.open(1).read([2, 11])
    assert clip.shape == (2, 32, 42, 3)
    assert np.abs(clip[:, 16, 16].astype(int) - [[20, 90, 30], [110, 90, 30]]).max() < 4


def test_all_splits_are_packed(tmp_path, capsys):
    for group in (1, 8, 15):
        folder = tmp_path / "data" / "Archery"
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / ("v_Archery_g%02d_c01.avi" % group), group, frames=4)
    assert run("ucf101", "--data-root", tmp_path, "--output", tmp_path / "store") == 0
    spec = find_dataset("UCF101")
    for split in (1, 2, 3):
        videos, own = load_videos(spec, str(tmp_path), split), load_videos(spec, str(tmp_path / "store"), split)
        for part, of_part in ((own.train, videos.train), (own.test, videos.test)):
            assert [part.relative(row) for row in range(len(part))] == [
                "data/" + of_part.relative(row) for row in range(len(of_part))]
            assert part.labels.tolist() == of_part.labels.tolist()
    assert run("ucf101", "--data-root", tmp_path, "--output", tmp_path / "second", "--split", 2) == 0
    with pytest.raises(ValueError, match="--split 1: the packed store .* has 2"):
        load_videos(spec, str(tmp_path / "second"), 1)


def test_wrong_words(root, tmp_path, capsys):
    assert run("folder", "--data-root", root, "--output", tmp_path / "store") == 0
    with pytest.raises(ValueError, match="is a packed store of folder; give --dataset folder"):
        load_videos(find_dataset("UCF101"), str(tmp_path / "store"))
    with pytest.raises(FileNotFoundError, match="no packed store in"):
        load_videos(FOLDER, str(root), source="packed")
    assert run("folder", "--data-root", tmp_path / "store", "--output", tmp_path / "again") == 2
    assert "is a packed store already" in capsys.readouterr().err
    with pytest.raises(ValueError, match="is a packed store: give the data set that it was packed from"):
        load_videos(find_dataset("motion10"), str(tmp_path / "store"), source="video")  # renders nothing into it
    assert run("folder", "--output", tmp_path / "nowhere", "--verify") == 2
    for words in (("--quality", 0), ("--quality", 101), ("--short-side", 0), ("--shard-size", 0), ("--workers", 0)):
        with pytest.raises(SystemExit):
            run("folder", "--output", tmp_path / "again", *words)


def test_leftovers_of_a_command_that_was_killed_at_its_very_end_are_removed(root, tmp_path, capsys):
    store = tmp_path / "store"
    assert run("folder", "--data-root", root, "--output", store) == 0
    (store / "packing.jsonl").write_bytes(b"")
    (store / ".packing-x").mkdir()
    assert run("folder", "--data-root", root, "--output", store) == 0
    assert sorted(os.listdir(str(store))) == ["packed.zip", "shard-00000.tar"]
