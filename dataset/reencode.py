"""Videos written anew with a key frame every few frames, so that reading a clip need not decode its way from the film's
start. Frame i of the result is frame i of the source as training reads it; no sound, no B-frames.

MPEG-4 Part 2, since at the same error it decodes half as fast again as H.264 (benchmarks/input.md). The same source
gives the same bytes: one thread a film.
"""
import contextlib
import errno
import os
from fractions import Fraction
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

import cv2
import numpy as np

from data.clip_readers import VideoFile
from data.reader import UnreadableClip
from dataset.index import Record
from dataset.layouts import REENCODED
from dataset.made_with import hold_to, made_with
from dataset.pictures import shrunk
from dataset.placing import put
from dataset.progress import say_progress, with_progress
from dataset.workers import Lost, run_all

try:
    import av
except ImportError:  # it is asked for before anything slow begins
    av = None  # type: ignore[assignment]

MOST_SECONDS = 7200  # for one video
USUAL_RATE = 25  # frames a second, where a header says nothing sensible
MOST_TICKS = 65535  # a second, of MPEG-4
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
# B, G, R -> Y, U, V of BT.601 in their narrow range. FFmpeg's own way there cuts off where it should round, as its way
# back does, which OpenCV takes: that one's level of brightness is given back here.
TO_YUV = np.array([[24.966, 128.553, 65.481, 17 * 255], [112.0, -74.203, -37.797, 128 * 255],
                   [-18.214, -93.786, 112.0, 128 * 255]]) / 255


class Coding(NamedTuple):
    """How films are written: frames from one key frame to the next, MPEG-4's quantizer (1 to 31, lower is better), most
    pixels of the short side (0: any).
    """

    key_frames: int
    quantizer: int
    short_side: int


USUAL = Coding(key_frames=12, quantizer=3, short_side=340)  # training at 224 pixels scales to 340 at most


class Film(NamedTuple):
    """A film to write: where it lies, its sound frames, frames a second, and where it goes."""

    video: str
    num_frames: int
    fps: float
    target: str
    coding: Coding


def check_encoder() -> None:
    """ValueError where films cannot be written, with what to install."""
    if av is None:
        raise ValueError('--reencode needs PyAV to write videos: pip install av')


def is_written(film: Film) -> bool:
    """Whether a film is there, and not the video itself in its place."""
    return os.path.exists(film.target) and os.path.getsize(film.target) != os.path.getsize(film.video)


def write_film(film: Film) -> Union[str, OSError]:
    """Writes a film; '' or what is wrong with the video, or the disk's error. The file appears when it is whole; one
    that is there is left as it is, in place of the video itself it comes.
    """
    if is_written(film):
        return ''
    part = film.target + '.part'
    cv2.setNumThreads(0)  # each core has a process of its own
    try:
        os.makedirs(os.path.dirname(film.target), exist_ok=True)
        _encode(film, part)
        written = VideoFile(part).num_frames
        if written != film.num_frames:
            return '%d frames were written, %d can be read' % (film.num_frames, written)
        os.replace(part, film.target)
        return ''
    except UnreadableClip as error:
        return error.reason
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, OSError) or getattr(error, 'errno', None) in DISK_ERRORS:
            return OSError(error.errno, '%s cannot be written: %s' % (film.target, error.strerror))
        return 'it cannot be encoded (%s)' % error.strerror
    except (cv2.error, MemoryError, ValueError) as error:
        return 'it cannot be encoded (%s)' % error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _encode(film: Film, part: str) -> None:
    """All frames, in their order, into the file `part`. Errors of reader, encoder and disk."""
    stream = None
    with av.open(part, 'w', format='mp4', options={'fflags': '+bitexact'}) as container:
        for number, frame in enumerate(VideoFile(film.video, film.num_frames).frames(range(film.num_frames))):
            if frame is None or frame.dtype != np.uint8 or frame.ndim != 3:
                raise UnreadableClip(film.video, 'frame %d cannot be decoded to 8-bit colour' % number)
            frame = shrunk(frame, film.coding.short_side, multiple=2)
            if stream is None:
                size, stream = frame.shape, _stream(container, film, frame.shape)
            elif frame.shape != size:
                raise UnreadableClip(film.video, 'the frame size changes at frame %d' % number)
            colours: Any = np.ascontiguousarray(cv2.transform(frame, TO_YUV).transpose(2, 0, 1))  # (Y U V, H, W)
            picture = av.VideoFrame.from_ndarray(colours, format='yuv444p').reformat(format='yuv420p')
            picture.pts = number
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _stream(container: Any, film: Film, shape: Tuple[int, ...]) -> Any:
    """The stream of the film's frames (H, W, C) in an open container."""
    fps = film.fps if 1 <= film.fps <= 1000 else USUAL_RATE
    options = {'g': str(film.coding.key_frames), 'bf': '0', 'sc_threshold': '1000000000'}  # no other key frames
    options['qmin'] = options['qmax'] = str(film.coding.quantizer)
    stream = container.add_stream('mpeg4', rate=Fraction(fps).limit_denominator(min(1001, int(MOST_TICKS / fps))),
                                  options=options)
    stream.height, stream.width, stream.pix_fmt = shape[0], shape[1], 'yuv420p'
    stream.codec_context.thread_count = 1
    return stream


def _place(folder: str, path: str) -> str:
    """Where videos/<Class>/<video> goes below a folder."""
    return os.path.join(folder, os.path.relpath(path, 'videos'))


def reencode_all(output: str, known: Dict[str, Record], paths: List[str], coding: Coding, workers: int) -> List[str]:
    """Writes all videos below `output`/videos anew, into a folder beside it; what is broken there goes as it is. The
    names of these, with the reason. `known`: what the index says, by path below the output.

    The folder has its name when it is whole, so that training never finds a half. ValueError where it holds films made
    with other options; OSError where it cannot be written.
    """
    folder = os.path.join(output, REENCODED)
    building = folder if os.path.isdir(folder) else folder + '.part'
    hold_to(building, dict(coding._asdict()))
    films, as_they_are = [], {}  # type: List[Film], Dict[str, str]
    for path in paths:
        video, target = os.path.join(output, path), _place(building, path)
        record = known.get(path)
        if record is None or record.problem:
            as_they_are[path] = 'the file cannot be read' if record is None else record.problem
        else:
            films.append(Film(video, record.facts.num_frames, record.fps, os.path.splitext(target)[0] + '.mp4', coding))
    films = [film for film in films if not is_written(film)]  # so that the estimate is of what is left
    for film, result in with_progress(run_all(write_film, films, workers, MOST_SECONDS), len(films), 'encoded',
                                      say_progress):
        if isinstance(result, OSError):
            raise result
        path = os.path.relpath(film.video, output)
        as_it_is = _place(building, path)
        if result:
            as_they_are[path] = result.reason if isinstance(result, Lost) else result
        elif as_it_is != film.target and os.path.exists(as_it_is):  # of an earlier run
            os.remove(as_it_is)
    for path in as_they_are:
        target = _place(building, path)
        if not os.path.exists(os.path.splitext(target)[0] + '.mp4'):  # encoded before, by another version
            put(os.path.join(output, path), target, target + '.part')
    if building != folder:
        os.rename(building, folder)
    return ['%s: %s' % one for one in sorted(as_they_are.items())]


def coding_of(output: str) -> Optional[Coding]:
    """How the re-encoded films of a prepared tree were made; None where there are none."""
    options = made_with(os.path.join(output, REENCODED))
    return None if options is None else Coding(**options)
