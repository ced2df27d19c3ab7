"""Readers: exactly the frames of a sequential decode, in any order, and a clear refusal of everything else."""
import os
import pickle
import shutil
import struct

import cv2
import numpy as np
import pytest
from conftest import write_video
from film_numbers import FILMS, FRAMES, audio_only_avi, decode_all, said_index, write_frames

from data import clip_readers, containers
from data.clip_readers import RawFrames, VideoFile, frame_rate, open_clip, seek_target
from data.reader import UnreadableClip
from data.transforms import Cut, Window, cut_clip
from data.video_list import VideoFacts

NAMES = pytest.mark.parametrize("name", sorted(FRAMES))


@NAMES
def test_counts_what_decodes(name):
    assert VideoFile(str(FILMS / name)).num_frames == FRAMES[name]


@NAMES
def test_every_frame_says_its_own_index(name):
    video = VideoFile(str(FILMS / name))
    clip = video.read(range(video.num_frames))
    assert clip.shape == (FRAMES[name], 96, 128, 3) and clip.dtype == np.uint8
    assert [said_index(frame) for frame in clip] == list(range(FRAMES[name]))


@NAMES
@pytest.mark.parametrize("indices", [[0, 9, 18, 27, 36, 45, 54, 63], [69, 3, 3, 40, 0, 69, 41, 3], [5], [69]])
def test_frames_equal_those_of_a_decode_from_the_start(name, indices):
    frames = decode_all(FILMS / name)
    clip = VideoFile(str(FILMS / name), FRAMES[name]).read(indices)
    assert np.array_equal(clip, np.stack([frames[index][:, :, ::-1] for index in indices]))
    assert [said_index(frame) for frame in clip] == indices
    assert clip.flags.c_contiguous


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", ["video", "rawframes"])
def test_reading_and_cutting_at_once_equals_one_after_the_other(kind, flip, tmp_path):
    path = FILMS / "xvid_packed_b.avi"
    if kind == "rawframes":
        path = write_frames(tmp_path / "frames", decode_all(path))
    reader, indices, sizes = open_clip(str(path), kind), [60, 3, 3, 17], []

    def cut_of(height, width):
        sizes.append((height, width))
        return Cut(150, 101, Window(20, 5, 64, 48), flip)
    whole = reader.read(indices)
    clip = reader.read(indices, cut_of)
    assert sizes == [(96, 128)] and clip.shape == (4, 48, 64, 3) and clip.flags.c_contiguous
    assert np.array_equal(clip, cut_clip(whole, cut_of(96, 128)))


def test_a_clip_goes_where_it_is_told_if_it_fits():
    reader, indices = VideoFile(str(FILMS / "mjpeg.avi"), 72), [7, 7, 3]
    expected = reader.read(indices)
    room = np.zeros((3, 96, 128, 3), np.uint8)
    assert reader.read(indices, out=room) is room and np.array_equal(room, expected)
    small = np.zeros((3, 48, 64, 3), np.uint8)
    clip = reader.read(indices, out=small)
    assert np.array_equal(clip, expected) and not small.any()


def facts_of(path, num_frames, key_frames=(), late=0):
    status = os.stat(str(path))
    return VideoFacts(num_frames, status.st_size, status.st_mtime_ns + late, key_frames)


def test_facts_come_before_a_count_while_they_are_of_this_file():
    path = FILMS / "mjpeg.avi"
    facts = facts_of(path, 30)
    video = open_clip(str(path), "video", 72, facts)
    assert video.num_frames == 30 and video.facts is facts
    for stale in (facts._replace(size=facts.size + 1), facts_of(path, 30, late=1)):
        video = open_clip(str(path), "video", None, stale)
        assert video.num_frames == 72 and video.facts is None
        assert open_clip(str(path), "video", 71, stale).num_frames == 71
    with pytest.raises(UnreadableClip, match="no frame can be decoded"):
        VideoFile(str(path), None, facts_of(path, 0))


def test_facts_of_a_folder_hold_while_its_time_does(folder):
    facts = facts_of(folder, 9)
    assert open_clip(str(folder), "rawframes", None, facts).num_frames == 9
    stale = RawFrames(str(folder), None, facts._replace(mtime_ns=5))
    assert stale.num_frames == 12 and stale.facts is None
    with pytest.raises(UnreadableClip, match="No such file"):
        RawFrames(str(folder / "gone"), None, facts)


@pytest.mark.parametrize("name, keys", [("mpeg4_gop12.avi", range(12, 72, 12)), ("mjpeg.avi", range(1, 72))])
def test_a_seek_gives_the_frames_of_a_decode_from_the_start(name, keys, monkeypatch):
    path, targets, target_of = FILMS / name, [], seek_target
    monkeypatch.setattr(clip_readers, "seek_target", lambda *words: targets.append(target_of(*words)) or targets[-1])
    frames = decode_all(path)
    video = VideoFile(str(path), None, facts_of(path, 72, tuple(keys)))
    for first in (0, 11, 12, 35, 36, 40, 47, 48, 59, 70):
        clip = video.read([71, first, first + 1])
        assert np.array_equal(clip, np.stack([frames[index][:, :, ::-1] for index in (71, first, first + 1)]))
    assert targets[0] == 0 and targets[-1] == max(keys[0], max(key for key in keys if key <= 70))


@pytest.mark.parametrize("keys, wanted, target", [
    ((), 500, 0), ((12, 24, 36, 48), 11, 0), ((12, 24, 36, 48), 40, 0), ((12, 24, 36, 48), 48, 48),
    ((250, 500), 260, 0), ((250, 500), 510, 500), ((250, 500), 499, 0), (tuple(range(1, 100)), 90, 90),
    (tuple(range(1, 100)), 20, 0)])
def test_seeks_are_made_where_they_save_decoding(keys, wanted, target):
    assert seek_target(keys, wanted) == target


def test_a_source_that_gives_too_few_frames_is_refused(monkeypatch):
    monkeypatch.setattr(VideoFile, "frames", lambda self, wanted: (image for image in ()))
    with pytest.raises(UnreadableClip, match="cannot be decoded to 8-bit colour"):
        VideoFile(str(FILMS / "mjpeg.avi"), 72).read([3])


def test_colours_are_red_green_blue(tmp_path):
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 2] = 200  # red, in OpenCV's order
    folder = write_frames(tmp_path / "red", [image])
    assert np.abs(RawFrames(str(folder)).read([0])[0, 16, 16].astype(int) - [200, 0, 0]).max() < 8


def test_frames_out_of_range(tmp_path):
    video = VideoFile(str(FILMS / "xvid_packed_b.avi"))
    for index in (70, -1):
        with pytest.raises(UnreadableClip, match="frame %d asked for, the video has 70" % index):
            video.read([0, index])
    with pytest.raises(UnreadableClip, match="frame 70 of 72 cannot be decoded"):
        VideoFile(str(FILMS / "xvid_packed_b.avi"), 72).read([71])
    with pytest.raises(ValueError, match="no frame asked for"):
        video.read([])


BROKEN = {
    "empty": (b"", "the file is empty"),
    "text": (b"not a film at all\n" * 50, "not a video file"),
    "playlist": (b"#EXTM3U\n#EXTINF:10,\nxvid_no_b.avi\n#EXT-X-ENDLIST\n", "not a video file"),
    "list of files": (b"ffconcat version 1.0\nfile xvid_no_b.avi\n", "not a video file"),
    "session": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "not a video file"),
    "sound": (b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(500), "not a video file"),
    "sound in a video container": (audio_only_avi(), "holds no video"),
    "zeros": (bytes(5000), "not a video file"),
    "header alone": ((FILMS / "xvid_no_b.avi").read_bytes()[:2048], "cannot be opened|no frame"),
    "header and zeros": ((FILMS / "xvid_no_b.avi").read_bytes()[:2048] + bytes(20000), "cannot be opened|no frame"),
    "torn mp4": ((FILMS / "h264_b.mp4").read_bytes()[:9000], "cannot be opened|no frame"),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_what_is_no_video_is_refused_with_its_reason(case, tmp_path, capfd):
    content, reason = BROKEN[case]
    path = tmp_path / "clip.avi"
    path.write_bytes(content)
    (tmp_path / "xvid_no_b.avi").write_bytes((FILMS / "xvid_no_b.avi").read_bytes())
    with pytest.raises(UnreadableClip, match=reason) as caught:
        VideoFile(str(path)).read([0])
    assert caught.value.path == str(path) and str(path) in str(caught.value)
    assert capfd.readouterr() == ("", "")  # decoders stay quiet: the exception says it all


@pytest.mark.parametrize("name", ["xvid_no_b.avi", "mpeg4_gop12.avi", "mjpeg.avi"])
def test_a_cut_file_gives_what_is_left_of_it(name, tmp_path):
    content = (FILMS / name).read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(content[:len(content) // 2])
    video = VideoFile(str(path))
    assert 5 < video.num_frames < 72
    whole = decode_all(FILMS / name)
    sound = video.num_frames - 1  # the last one may be cut
    assert np.array_equal(video.read(range(sound)), np.stack(whole[:sound])[..., ::-1])


def test_a_path_that_is_no_text_is_refused(tmp_path):
    """OpenCV ends the process for it."""
    path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9.avi"))
    shutil.copyfile(str(FILMS / "mjpeg.avi"), path)
    with pytest.raises(UnreadableClip, match="not UTF-8"):
        VideoFile(path)


def test_what_is_no_regular_file_is_refused(tmp_path):
    with pytest.raises(UnreadableClip, match="No such file"):
        VideoFile(str(tmp_path / "nothing.avi"))
    with pytest.raises(UnreadableClip, match="not a regular file"):
        VideoFile(str(tmp_path))
    os.mkfifo(str(tmp_path / "pipe.avi"))
    with pytest.raises(UnreadableClip, match="not a regular file"):  # and does not wait for a writer
        VideoFile(str(tmp_path / "pipe.avi"))
    for name in ("http://localhost/x.avi", "concat:a.avi|b.avi", "file:%s" % (FILMS / "mjpeg.avi")):
        with pytest.raises(UnreadableClip, match="No such file"):
            VideoFile(name)


def test_names_are_no_patterns(tmp_path):
    content = (FILMS / "mjpeg.avi").read_bytes()
    (tmp_path / "100 %03d [x]*?.avi").write_bytes(content)
    assert VideoFile(str(tmp_path / "100 %03d [x]*?.avi")).num_frames == 72
    (tmp_path / "img_%03d.jpg").write_bytes(content)
    with pytest.raises(UnreadableClip, match="pattern"):
        VideoFile(str(tmp_path / "img_%03d.jpg"))


def test_huge_frames_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    place = jpeg.index(b"\xff\xc0") + 5
    jpeg[place:place + 4] = struct.pack(">HH", 9000, 65000)
    (tmp_path / "img_00001.jpg").write_bytes(jpeg)
    with pytest.raises(UnreadableClip, match="65000 x 9000 pixels; 1 to 8192 a side"):
        RawFrames(str(tmp_path)).read([0])
    monkeypatch.setattr(containers, "MOST_SIDE", 100)
    with pytest.raises(UnreadableClip, match="128 x 96 pixels; 1 to 100 a side"):
        VideoFile(str(FILMS / "mjpeg.avi"))


@pytest.fixture
def folder(tmp_path):
    return write_frames(tmp_path / "frames", decode_all(FILMS / "mjpeg.avi")[:12])


def test_raw_frames(folder):
    for name in ("flow_x_00001.jpg", "img_00001.jpg.part", "img_.jpg", "notes.txt"):
        (folder / name).write_text("beside")
    frames = RawFrames(str(folder))
    assert frames.num_frames == 12
    clip = frames.read([11, 0, 5, 0])
    assert [said_index(frame) for frame in clip] == [11, 0, 5, 0]
    expected = cv2.imread(str(folder / "img_00006.jpg"))[:, :, ::-1]
    assert np.array_equal(clip[2], expected) and np.array_equal(clip[1], clip[3])


def test_raw_frames_with_the_lists_count(folder):
    (folder / "img_00003.jpg").unlink()
    frames = RawFrames(str(folder), 10)
    assert frames.num_frames == 10 and said_index(frames.read([9])[0]) == 9
    with pytest.raises(UnreadableClip, match="No such file") as caught:
        frames.read([1, 2])
    assert caught.value.path.endswith("img_00003.jpg")
    with pytest.raises(UnreadableClip, match="frame 10 asked for, the video has 10"):
        frames.read([10])


def test_raw_frames_of_another_name(folder):
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("img_", "image.").replace("000", ""))
    assert RawFrames(str(folder), template="image.{:02d}.jpg").num_frames == 12


@pytest.mark.parametrize("change, reason", [
    (lambda f: (f / "img_00004.jpg").unlink(), "11 frames, but img_00004.jpg is missing"),
    (lambda f: (f / "img_00001.jpg").rename(f / "img_00000.jpg"), "img_00001.jpg is missing"),
    (lambda f: [p.unlink() for p in f.iterdir()], "no frame named like img_00001.jpg"),
    (lambda f: (f / "img_00002.jpg").write_bytes(b""), "empty"),
    (lambda f: (f / "img_00002.jpg").write_text("text"), "not a JPEG"),
    (lambda f: (f / "img_00002.jpg").write_bytes((f / "img_00001.jpg").read_bytes()[:900]), "cut off"),
    (lambda f: (f / "img_00002.jpg").write_bytes(b"\xff\xd8\xff\xd9"), "0 x 0 pixels"),
    (lambda f: cv2.imwrite(str(f / "img_00002.jpg"), np.zeros((9, 7, 3), np.uint8)), "size changes from 128x96 to 7x9"),
])
def test_damaged_raw_frames(folder, change, reason):
    change(folder)
    with pytest.raises(UnreadableClip, match=reason):
        RawFrames(str(folder)).read([0, 1])


def test_missing_folder(tmp_path):
    with pytest.raises(UnreadableClip, match="cannot be listed"):
        RawFrames(str(tmp_path / "nowhere"))


def test_open_clip_chooses_by_kind(folder):
    assert isinstance(open_clip(str(folder), "rawframes"), RawFrames)
    assert open_clip(str(FILMS / "mjpeg.avi"), "video", 5).num_frames == 5
    with pytest.raises(KeyError):
        open_clip(str(folder), "gif")


def test_files_are_closed_again():
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("counts open files through /proc")
    for _ in range(2):
        VideoFile(str(FILMS / "mjpeg.avi")).read([0])  # the first one may leave libraries open
        before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        VideoFile(str(FILMS / "mjpeg.avi")).read([0, 3])
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_exception_keeps_its_parts():
    error = UnreadableClip("/a/b", "why")
    assert (error.path, error.reason, str(error)) == ("/a/b", "why", "/a/b: why")
    assert str(pickle.loads(pickle.dumps(error))) == "/a/b: why"


def test_the_frame_rate_is_the_files(tmp_path):
    write_video(tmp_path / "a.avi", 1, frames=3)
    assert frame_rate(str(tmp_path / "a.avi")) == pytest.approx(25)
    (tmp_path / "b.avi").write_bytes(b"text")
    with pytest.raises(UnreadableClip, match="b.avi"):
        frame_rate(str(tmp_path / "b.avi"))
