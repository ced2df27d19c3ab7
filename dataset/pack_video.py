"""One video packed: its frames scaled, coded as JPEG, and written as the members of a tar file, one after the other."""
import tarfile
import zlib
from typing import IO, List, NamedTuple, Optional, Tuple

import cv2
import numpy as np

from data.clip_readers import open_clip
from data.packed_index import FRAME
from data.reader import UnreadableClip
from data.video_list import VideoFacts
from dataset.examine import FRAME_NAME
from dataset.pictures import jpeg_of, shrunk

BLOCK = tarfile.BLOCKSIZE


class Task(NamedTuple):
    """What to pack, and the file that it goes to."""

    video: int
    path: str
    kind: str  # as in VideoList
    num_frames: int  # as the list says, 0 for unknown
    facts: Optional[VideoFacts]
    member: str  # folder of the frames within the tar file
    segment: str
    short_side: int
    quality: int


class Packed(NamedTuple):
    """What came of it: a row of FRAME for each frame, offsets from the segment's start; `error` of the disk."""

    table: bytes
    size: int
    problem: str  # '' where all frames are there
    error: Tuple[int, str] = (0, '')


def pack_video(task: Task) -> Packed:
    """Writes the segment. Lets no exception out: a video that breaks off is packed up to there."""
    rows: List[Tuple[int, int, int]] = []
    cv2.setNumThreads(0)  # each core has a process of its own
    try:
        with open(task.segment, 'wb') as file:
            problem = _write_frames(task, file, rows)
            size = file.tell()
    except OSError as error:
        return Packed(b'', 0, '', (error.errno or 0, '%s: %s' % (task.segment, error.strerror)))
    return Packed(np.array(rows, FRAME).tobytes(), size, problem)


def _write_frames(task: Task, file: IO[bytes], rows: List[Tuple[int, int, int]]) -> str:
    """Why not all frames were written, '' where they were."""
    shape: Tuple[int, ...] = ()
    try:
        reader = open_clip(task.path, task.kind, task.num_frames or None, task.facts)
        for number, frame in enumerate(reader.frames(range(reader.num_frames)), 1):
            if frame is None or frame.dtype != np.uint8 or frame.ndim != 3 or shape not in ((), frame.shape):
                return 'frame %d cannot be decoded to 8-bit colour of the size before' % (number - 1)
            shape = frame.shape
            if not reader.blue_first:
                frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            jpeg = jpeg_of(shrunk(frame, task.short_side), task.quality)
            offset = write_member(file, '%s/%s' % (task.member, FRAME_NAME % number), jpeg)
            rows.append((offset, len(jpeg), zlib.crc32(jpeg)))
    except UnreadableClip as error:
        return error.reason
    except (cv2.error, MemoryError) as error:
        return 'frame %d cannot be packed (%s)' % (len(rows), error)
    return ''


def write_member(file: IO[bytes], name: str, content: bytes) -> int:
    """Appends a member to a tar file; returns where its content begins. The same bytes whenever and whoever writes."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    header = member.tobuf(tarfile.PAX_FORMAT, 'utf-8', 'surrogateescape')
    offset = file.tell() + len(header)
    file.write(header + content + bytes(-len(content) % BLOCK))
    return offset
