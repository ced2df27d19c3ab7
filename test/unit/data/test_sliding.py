"""Sliding clips: the windows, and the frames that each film says of itself."""
import numpy as np
import pytest
from film_numbers import FILMS, said_index

from data.clip_readers import UnreadableClip, VideoFile
from data.reader import Reader
from data.sliding import Clock, sliding_clips, window_starts
from data.transforms import EvalTransform, whole_frame


class Whole(EvalTransform):
    def cut(self, height, width):
        return whole_frame(height, width)


@pytest.mark.parametrize("num_frames, span, stride, starts", [
    (5, 8, 2, [0]), (8, 8, 2, [0]), (9, 8, 2, [0, 1]), (12, 8, 2, [0, 2, 4]), (13, 8, 2, [0, 2, 4, 5]),
    (20, 4, 8, [0, 8, 16])])
def test_windows_reach_from_the_first_frame_to_the_last(num_frames, span, stride, starts):
    assert window_starts(num_frames, span, stride) == starts


@pytest.mark.parametrize("stride", [3, 7, 40])
def test_each_clip_holds_the_frames_of_its_window(stride):
    reader, seen = VideoFile(str(FILMS / "mjpeg.avi")), []
    reader.frames = lambda wanted: seen.append(list(wanted)) or VideoFile.frames(reader, wanted)
    clips = list(sliding_clips(reader, Whole(16, 16), 4, 5, stride))
    assert [clip.start for clip in clips] == window_starts(72, 16, stride) and clips[-1].end == 72
    for clip in clips:
        assert [said_index(frame) for frame in clip.clip] == list(range(clip.start, clip.end, 5))
    assert len(seen) == 1  # decoded once


def test_clips_are_cut_as_an_evaluation_cuts_them():
    reader, transform = VideoFile(str(FILMS / "h264_b.mp4")), EvalTransform(16, 20, crops=2)
    for clip in sliding_clips(reader, transform, 4, 5, 30):
        whole = reader.read(range(clip.start, clip.end, 5), transform.cut)
        assert np.array_equal(clip.clip, transform.windows(whole))


def test_a_short_video_has_one_clip_that_repeats_its_frames():
    clip, = sliding_clips(VideoFile(str(FILMS / "mjpeg.avi")), Whole(16, 16), 8, 20, 5)
    assert (clip.start, clip.end) == (0, 72) and [said_index(frame) for frame in clip.clip] == list(range(8))


class Damaged(Reader):
    path, num_frames, blue_first = "film", 30, False

    def frames(self, wanted):
        for index in wanted:
            yield None if index >= 12 else np.full((16, 16, 3), index, np.uint8)


def test_damage_ends_it_after_the_windows_before():
    clips = sliding_clips(Damaged(), Whole(16, 16), 2, 3, 4)
    assert [next(clips).start for _ in range(3)] == [0, 4, 8]
    with pytest.raises(UnreadableClip, match="film") as stop:
        next(clips)
    assert stop.value.readable == 12


def test_windows_are_timed_as_a_film_of_changing_rate_says():
    clips = list(sliding_clips(VideoFile(str(FILMS / "changing_rate.mkv")), Whole(16, 16), 4, 3, 10, rate=25.0))
    assert [(clip.start, clip.end) for clip in clips] == [(0, 10), (10, 20), (20, 30)]
    seconds = [value for clip in clips for value in clip.seconds]
    # frame 9 is at 0.9 s, 10 at 1.0, 19 at 1.34, 20 at 1.36, 29 at 1.54
    assert seconds == pytest.approx([0, 0.94, 1.0, 1.38, 1.36, 1.58])
    short, = sliding_clips(VideoFile(str(FILMS / "changing_rate.mkv")), Whole(16, 16), 8, 8, 10, rate=25.0)
    assert short.seconds == pytest.approx((0, 0.7 + 23 / 25))  # it reads frames 0 to 7; the rest is by the rate


def test_times_that_do_not_rise_are_those_of_the_rate():
    clock, avi = Clock(10.0), Clock(25.0)
    assert [clock(index, None) for index in (0, 1, 5)] == [0, 0.1, 0.5] and clock.end(5) == 0.6
    # as AVI with B-frames gives them: late from the first on, and none at the end
    assert [avi(index, time) for index, time in ((0, 0.04), (1, 0.08), (2, 0.12), (3, 0.0))] == pytest.approx(
        [0, 0.04, 0.08, 0.12])


@pytest.mark.parametrize("film", ["mpeg4_plain_b.avi", "h264_b.mp4", "mjpeg.avi"])
def test_windows_of_a_film_of_one_rate_follow_it(film):
    for clip in sliding_clips(VideoFile(str(FILMS / film)), Whole(16, 16), 4, 5, 16):
        assert clip.seconds == pytest.approx((clip.start / 25, clip.end / 25))
