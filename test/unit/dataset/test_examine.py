"""What is found in films that say their own frames, sound and damaged, with and without the strict decoder."""
import os
import shutil

import cv2
import numpy as np
import pytest
from film_numbers import FILMS, FRAMES, decode_all, said_index, write_frames
from film_sets import damaged

from data.clip_readers import UnreadableClip, VideoFile
from data.strict_decoding import strict_decoder
from dataset import examine as module
from dataset.examine import examine

LAYOUTS = {"xvid_no_b.avi": ("none", ()), "xvid_packed_b.avi": ("packed", ()), "mpeg4_plain_b.avi": ("some", ()),
           "mpeg4_gop12.avi": ("none", (12, 24, 36, 48, 60)), "h264_b.mp4": ("some", (48,)),
           "mjpeg.avi": ("none", tuple(range(8, 72, 8)))}
needs_strict = pytest.mark.skipif(strict_decoder() is None, reason="PyAV is not installed")


@pytest.fixture(params=["strict", "cv2"])
def decoder(request, monkeypatch):
    """With the strict decoder (where it is installed) and without."""
    if request.param == "cv2":
        monkeypatch.setattr(module, "strict_decoder", lambda: None)
    elif strict_decoder() is None:
        pytest.skip("PyAV is not installed")
    return request.param


@pytest.mark.parametrize("name", sorted(FRAMES))
def test_a_sound_film(name, decoder):
    record = examine(str(FILMS), name, "video")
    stat = os.stat(str(FILMS / name))
    assert (record.path, record.kind, record.problem) == (name, "video", "")
    assert record.facts == (FRAMES[name], stat.st_size, stat.st_mtime_ns, LAYOUTS[name][1])
    assert (record.width, record.height, record.fps, record.b_frames) == (128, 96, 25.0, LAYOUTS[name][0])
    assert record.opencv == cv2.__version__ and (record.strict != "") == (decoder == "strict")
    assert len(record.content) == 32


def test_a_key_frame_at_which_a_seek_lands_elsewhere_is_left_out(monkeypatch):
    def lands_late(path, place):
        frames = decode_all(path)[place + (place == 24):]
        return module.array("L", [module.zlib.crc32(frame) for frame in frames[:module.SEEN_AFTER_SEEK]])
    monkeypatch.setattr(module, "_after_seek", lands_late)
    assert examine(str(FILMS), "mpeg4_gop12.avi", "video").facts.key_frames == (12, 36, 48, 60)


def test_many_key_frames_are_thinned(monkeypatch):
    monkeypatch.setattr(module, "MOST_KEYS", 3)
    assert examine(str(FILMS), "mjpeg.avi", "video").facts.key_frames == (8, 32, 56)


def test_content_is_that_of_the_frames(tmp_path):
    first = examine(str(FILMS), "xvid_no_b.avi", "video")
    data = (FILMS / "xvid_no_b.avi").read_bytes()
    (tmp_path / "copy.avi").write_bytes(data + b"JUNK\x04\x00\x00\x00more")
    assert examine(str(tmp_path), "copy.avi", "video").content == first.content
    assert len({examine(str(FILMS), name, "video").content for name in FRAMES}) == len(FRAMES)


@needs_strict
@pytest.mark.parametrize("name", sorted(set(FRAMES) - {"h264_b.mp4"}))
@pytest.mark.parametrize("stop", [200, None])
def test_frames_before_the_damage_are_the_films(name, stop, tmp_path):
    start = (FILMS / name).stat().st_size // 2
    path = damaged(name, tmp_path / name, start, stop and start + stop)
    record = examine(str(tmp_path), name, "video")
    count = record.facts.num_frames
    assert 20 < count < 50 and record.problem and record.facts.key_frames == ()
    whole = decode_all(FILMS / name)
    clip = VideoFile(str(path), count).read(range(count))
    assert [said_index(frame) for frame in clip] == list(range(count))
    assert np.array_equal(clip[:, :, :, ::-1], np.stack(whole[:count]))


def test_a_cut_file_is_noticed_without_the_strict_decoder(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "strict_decoder", lambda: None)
    damaged("xvid_no_b.avi", tmp_path / "cut.avi", 20000, None)
    record = examine(str(tmp_path), "cut.avi", "video")
    whole, cut = decode_all(FILMS / "xvid_no_b.avi"), decode_all(tmp_path / "cut.avi")
    same = sum(np.array_equal(a, b) for a, b in zip(whole, cut))
    assert 0 < record.facts.num_frames <= same and record.problem == "the header says 72 frames, %d decode" % len(cut)


@pytest.mark.parametrize("data, reason", [
    (b"", "empty"), (b"not a film\n" * 50, "not a video file"), (b"ffconcat version 1.0\nfile x.avi\n", "not a video"),
    ((FILMS / "h264_b.mp4").read_bytes()[:9000], "cannot be opened|no frame"),
])
def test_what_is_no_film(tmp_path, data, reason, decoder):
    (tmp_path / "x.avi").write_bytes(data)
    record = examine(str(tmp_path), "x.avi", "video")
    assert record.facts[0] == 0 and record.facts.size == len(data) and record.content == ""
    with pytest.raises(UnreadableClip) as caught:
        VideoFile(str(tmp_path / "x.avi"))
    assert record.problem == caught.value.reason


def test_what_is_not_there(tmp_path):
    for kind in ("video", "rawframes"):
        with pytest.raises(OSError):
            examine(str(tmp_path), "nowhere", kind)


def test_frame_folders(tmp_path):
    frames = [np.full((32, 48, 3), 40 * number, np.uint8) for number in range(1, 6)]
    write_frames(tmp_path / "whole", frames)
    record = examine(str(tmp_path), "whole", "rawframes")
    size = sum(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    assert record.facts == (5, size, os.stat(str(tmp_path / "whole")).st_mtime_ns, ())
    assert (record.problem, record.width, record.height) == ("", 48, 32)
    shutil.copytree(str(tmp_path / "whole"), str(tmp_path / "copy"))
    (tmp_path / "copy" / "flow_x_00009.jpg").write_bytes(b"another file")
    assert examine(str(tmp_path), "copy", "rawframes").content == record.content
    (tmp_path / "copy" / "img_00003.jpg").unlink()
    gap = examine(str(tmp_path), "copy", "rawframes")
    assert gap.facts.num_frames == 2 and gap.problem == "4 frames, but number 3 is missing"
    (tmp_path / "whole" / "img_00004.jpg").write_bytes((tmp_path / "whole" / "img_00004.jpg").read_bytes()[:200])
    cut = examine(str(tmp_path), "whole", "rawframes")
    assert cut.facts.num_frames == 3 and "img_00004.jpg" in cut.problem and "cut off" in cut.problem
    write_frames(tmp_path / "sizes", frames[:2] + [np.zeros((16, 16, 3), np.uint8)])
    assert examine(str(tmp_path), "sizes", "rawframes").problem == "the frame size changes at number 3"
    (tmp_path / "empty").mkdir()
    assert examine(str(tmp_path), "empty", "rawframes").problem == "no frame named img_00001.jpg"
