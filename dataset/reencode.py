"""Videos written anew as H.264 with a key frame every few frames, so that reading a clip need not decode its way from
the film's start. Frame i of the result is frame i of the source as training reads it; no sound, no B-frames.

The same source gives the same bytes: one thread a film, and x264 decides the same on every processor.
"""
import contextlib
import errno
import os
from fractions import Fraction
from typing import Dict, List, NamedTuple, Optional, Union

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
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
# B, G, R -> Y, U, V of BT.601 in their narrow range. FFmpeg's own way there cuts off where it should round, as its way
# back does, which OpenCV takes: that one's level of brightness is given back here.
TO_YUV = np.array([[24.966, 128.553, 65.481, 17 * 255], [112.0, -74.203, -37.797, 128 * 255],
                   [-18.214, -93.786, 112.0, 128 * 255]]) / 255
X264 = {'preset': 'fast', 'tune': 'fastdecode', 'sc_threshold': '0', 'bf': '0', 'x264-params': 'cpu-independent=1'}


class Coding(NamedTuple):
    """How films are written: frames from one key frame to the next, x264's constant rate factor (lower is better),
    most pixels of the short side (0: any).
    """

    key_frames: int
    crf: int
    short_side: int


class Film(NamedTuple):
    """A film to write: where it lies, its sound frames, frames a second, and where it goes."""

    video: str
    num_frames: int
    fps: float
    target: str
    coding: Coding


def encoder_lack() -> str:
    """What to install before films can be written; '' where nothing is lacking."""
    if av is None:
        return 'PyAV writes the videos: pip install av'
    return '' if 'libx264' in av.codecs_available else 'a PyAV with libx264 is needed: pip install av --only-binary av'


def check_encoder() -> None:
    """ValueError where films cannot be written, with what to install."""
    if encoder_lack():
        raise ValueError('--reencode: %s' % encoder_lack())


def is_written(film: Film) -> bool:
    """Whether a film is there, and not the video itself in its place."""
    return os.path.exists(film.target) and os.path.getsize(film.target) != os.path.getsize(film.video)


def write_film(film: Film) -> Union[str, OSError]:
    """Writes a film; '' or what is wrong with the video, or the disk's error. The file appears when it is whole; one
    that is there is left as it is, in place of the video itself it comes.
    """
    if is_written(film):
        return ''
    as_it_is = os.path.join(os.path.dirname(film.target), os.path.basename(film.video))
    part = film.target + '.part'
    cv2.setNumThreads(0)  # each core has a process of its own
    try:
        os.makedirs(os.path.dirname(film.target), exist_ok=True)
        _encode(film, part)
        written = VideoFile(part).num_frames
        if written != film.num_frames:
            return '%d frames were written, %d can be read' % (film.num_frames, written)
        os.replace(part, film.target)
        if as_it_is != film.target and os.path.exists(as_it_is):
            os.remove(as_it_is)
        return ''
    except UnreadableClip as error:
        return error.reason
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, OSError) or getattr(error, 'errno', None) in DISK_ERRORS:
            return OSError(error.errno, '%s cannot be written: %s' % (film.target, error.strerror))
        return 'it cannot be encoded (%s)' % error.strerror
    except (cv2.error, MemoryError) as error:
        return 'it cannot be encoded (%s)' % error
    finally:
        with contextlib.suppress(OSError):
            os.remove(part)


def _encode(film: Film, part: str) -> None:
    """All frames, in their order, into the file `part`. Errors of reader, encoder and disk."""
    fps = Fraction(film.fps).limit_denominator(1001) if 1 <= film.fps <= 1000 else Fraction(USUAL_RATE)
    options = dict(X264, crf=str(film.coding.crf), g=str(film.coding.key_frames))
    options['keyint_min'] = options['g']
    stream = None
    with av.open(part, 'w', format='mp4', options={'fflags': '+bitexact'}) as container:
        for number, frame in enumerate(VideoFile(film.video, film.num_frames).frames(range(film.num_frames))):
            if frame is None or frame.dtype != np.uint8 or frame.ndim != 3:
                raise UnreadableClip(film.video, 'frame %d cannot be decoded to 8-bit colour' % number)
            frame = shrunk(frame, film.coding.short_side, multiple=2)
            height, width = frame.shape[:2]
            if stream is None:
                stream = container.add_stream('libx264', rate=fps, options=options)
                stream.width, stream.height, stream.codec_context.thread_count = width, height, 1
                stream.pix_fmt = 'yuv420p' if width % 2 == height % 2 == 0 else 'yuv444p'  # the first has even sides
            elif (width, height) != (stream.width, stream.height):
                raise UnreadableClip(film.video, 'the frame size changes at frame %d' % number)
            picture = av.VideoFrame.from_ndarray(_planes(frame, stream.pix_fmt), format=stream.pix_fmt)
            picture.pts, picture.time_base = number, 1 / fps
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode())


def _planes(frame: np.ndarray, pix_fmt: str) -> np.ndarray:
    """(H, W, B G R) uint8 -> (3, H, W) for yuv444p, (H * 3 / 2, W) for yuv420p, whose chroma has half the sides."""
    colours = cv2.transform(frame, TO_YUV)  # (H, W, Y U V)
    if pix_fmt == 'yuv444p':
        return np.ascontiguousarray(colours.transpose(2, 0, 1))  # (3, H, W)
    height, width = frame.shape[:2]
    chroma = cv2.resize(colours[:, :, 1:], (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    planes = [colours[:, :, 0].ravel(), chroma[:, :, 0].ravel(), chroma[:, :, 1].ravel()]
    return np.concatenate(planes).reshape(height * 3 // 2, width)  # (H * 3 / 2, W)


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
        video, target = os.path.join(output, path), os.path.join(building, os.path.relpath(path, 'videos'))
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
        if result:
            path = os.path.relpath(film.video, output)
            as_they_are[path] = result.reason if isinstance(result, Lost) else result
    for path in as_they_are:
        target = os.path.join(building, os.path.relpath(path, 'videos'))
        if not os.path.exists(os.path.splitext(target)[0] + '.mp4'):  # encoded before, by another version
            put(os.path.join(output, path), target, target + '.part')
    if building != folder:
        os.rename(building, folder)
    return ['%s: %s' % one for one in sorted(as_they_are.items())]


def coding_of(output: str) -> Optional[Coding]:
    """How the re-encoded films of a prepared tree were made; None where there are none."""
    options = made_with(os.path.join(output, REENCODED))
    return None if options is None else Coding(**options)
