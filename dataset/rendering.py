"""What the rendered data sets share: films named as UCF-101's, coded by OpenCV, all of them on first use or none."""
import logging
import os
import shutil
import tempfile
import zlib
from typing import Callable, Iterator, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from data.clip_readers import UnreadableClip, VideoFile

_log = logging.getLogger(__name__)


class FilmSet(NamedTuple):
    """A rendered data set: its name, the text that changes with every change of a pixel, and what rendering takes."""

    name: str
    version: str
    about: str

    @property
    def version_file(self) -> str:
        """The file of data/ that holds the version, written last."""
        return self.name + '.txt'


def keyed_draws(name: str) -> np.random.RandomState:
    """Random numbers that follow from a name."""
    return np.random.RandomState(zlib.crc32(name.encode('ascii')))


def video_name(class_name: str, group: int, clip: int) -> str:
    """UCF-101's naming; group and clip count from 1."""
    return 'v_%s_g%02d_c%02d.avi' % (class_name, group, clip)


def each_film(folder: str, class_names: Sequence[str], groups: int, clips: int) -> Iterator[Tuple[str, int, int, str]]:
    """Class, group, clip and path of every film, in order; makes the folders of the classes on the way."""
    for name in class_names:
        os.mkdir(os.path.join(folder, name))
        for group in range(1, groups + 1):
            for clip in range(1, clips + 1):
                yield name, group, clip, os.path.join(folder, name, video_name(name, group, clip))


def write_film(path: str, frames: np.ndarray, frames_per_second: float) -> None:
    """Frames (T, H, W, 3) uint8 RGB as Motion JPEG: each is coded alone, so that none carries traces of its neighbours.

    OSError where OpenCV cannot write, or where the file came out short.
    """
    code = cv2.VideoWriter.fourcc(*'MJPG')
    height, width = frames.shape[1:3]
    writer = cv2.VideoWriter(path, cv2.CAP_OPENCV_MJPEG, code, frames_per_second, (width, height))
    if not writer.isOpened():
        raise OSError('cannot write %s: see that the disk has room and that OpenCV has its MJPG writer' % path)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    try:
        complete = VideoFile(path).num_frames == len(frames)
    except UnreadableClip:
        complete = False
    if not complete:
        raise OSError('%s came out incomplete: see that the disk has room, then start again' % path)


def is_rendered(root: str, films: FilmSet) -> bool:
    """Whether `root` holds the whole set in this version. ValueError where data/ is something else."""
    folder = os.path.join(root, 'data')
    if not os.path.lexists(folder):
        return False
    try:
        with open(os.path.join(folder, films.version_file), encoding='utf-8') as file:
            same = file.read() == films.version
    except (OSError, UnicodeDecodeError):
        same = False
    if not same:
        raise ValueError('%s is not this version of %s: remove it, and it is rendered again, or give --data-root '
                         'another folder' % (folder, films.name))
    return True


def render_once(root: str, films: FilmSet, fill: Callable[[str], None]) -> bool:
    """Lets `fill` write all films into a folder below `root` where they are not there yet; True where it did.

    All or nothing, also when several processes start at once: a temporary folder becomes root/data in one step.
    OSError where the disk is full or the folder cannot be written.
    """
    if is_rendered(root, films):
        return False
    _log.info('rendering %s into %s: %s, once', films.name, root, films.about)
    os.makedirs(root, exist_ok=True)
    folder = tempfile.mkdtemp(prefix='.rendering-', dir=root)
    try:
        fill(folder)
        with open(os.path.join(folder, films.version_file), 'w', encoding='utf-8') as file:
            file.write(films.version)
        os.chmod(folder, 0o755)
        os.rename(folder, os.path.join(root, 'data'))
    except OSError:
        if not is_rendered(root, films):  # else another process was first
            raise
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True
