"""One video looked at from end to end, for the index: what decodes, where a seek is exact, what is broken."""
import hashlib
import math
import os
import re
import zlib
from array import array
from typing import List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np

from data.clip_readers import RawFrames, UnreadableClip, open_capture
from data.strict_decoding import sound_part, strict_decoder
from data.video_list import VideoFacts
from dataset.index import Record, stamp_of

PACKED_MARK = re.compile(rb'DivX\d+[Bb]\d+p')  # how an encoder says that it packs a B-frame beside its reference
HEAD = 1 << 16  # bytes in which the mark stands
KEYS_APART, MOST_KEYS = 8, 64  # a seek of OpenCV decodes 16 frames: each frame of type I would make this a long pass
SEEN_AFTER_SEEK = 8  # frames compared
UNCOUNTED = 2  # frames that a header may promise beyond those that decode, some are lost at the end; of a cut file the
# last ones may show it
FRAME_NAME = 'img_%05d.jpg'
FRAME_NUMBER = re.compile(r'img_(\d+)\.jpg\Z')


class _Seen(NamedTuple):
    """A decode from frame 0 on: a checksum and a type (I, P, B) of each frame, (H, W) of all, what ended it."""

    checksums: 'array[int]'
    types: bytes
    size: Tuple[int, int]
    fps: float
    promised: int
    problem: str


def examine(root: str, path: str, kind: str) -> Record:
    """Looks at one video or folder of frames below the root. OSError where it is not there or may not be read."""
    full = os.path.join(root, path)
    record = unread(root, path, kind)  # stamped before the first byte is read: what changes meanwhile does not fit it
    try:
        return _video(full, record) if kind == 'video' else _frame_folder(full, record)
    except UnreadableClip as error:
        return record._replace(problem=error.reason)


def unread(root: str, path: str, kind: str, problem: str = '') -> Record:
    """The record of a video of which no frame is known. OSError as of `examine`."""
    size, mtime_ns = stamp_of(os.path.join(root, path), kind)
    strict = strict_decoder() if kind == 'video' else None
    return Record(path, kind, VideoFacts(0, size, mtime_ns, ()), cv2.__version__, strict or '', 0, 0, 0.0, '', problem,
                  '')


def _video(path: str, record: Record) -> Record:
    seen = _decode(path)
    count, problem = len(seen.checksums), seen.problem
    with open(path, 'rb') as file:
        head = file.read(HEAD)
    if strict_decoder() is not None:
        sound, complaint = sound_part(path)
        count, problem = min(count, sound), complaint or problem
    elif head[8:12] == b'AVI ' and seen.promised - count > UNCOUNTED and not problem:  # other headers only estimate
        count, problem = max(0, count - UNCOUNTED), 'the header says %d frames, %d decode' % (seen.promised, count)
    keys = () if problem else tuple(_exact_keys(path, seen))
    return record._replace(
        facts=record.facts._replace(num_frames=count, key_frames=tuple(key for key in keys if key < count)),
        width=seen.size[1], height=seen.size[0], fps=seen.fps, b_frames=_layout(seen.types, head), problem=problem,
        content=_content(seen.size, seen.checksums[:count]))


def _layout(types: bytes, head: bytes) -> str:
    if 0 in types:
        return ''
    return 'none' if b'B' not in types else 'packed' if PACKED_MARK.search(head) else 'some'


def _decode(path: str) -> _Seen:
    """What the training reader's decoder gives. UnreadableClip where it gives nothing."""
    checksums, types, size, problem = array('L'), bytearray(), (0, 0), ''
    with open_capture(path) as capture:
        fps, promised = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        while capture.grab():
            frame = capture.retrieve()[1]
            if frame is None or frame.dtype != np.uint8 or frame.ndim != 3 or checksums and frame.shape[:2] != size:
                problem = 'frame %d cannot be decoded to 8-bit colour of the size before' % len(checksums)
                break
            size = frame.shape[:2]
            checksums.append(zlib.crc32(frame.data))
            types.append(_type_of(capture))
    if not checksums:
        raise UnreadableClip(path, problem or 'no frame can be decoded')
    return _Seen(checksums, bytes(types), size, fps if math.isfinite(fps) and fps > 0 else 0.0,
                 int(promised) if math.isfinite(promised) else 0, problem)


def _type_of(capture: cv2.VideoCapture) -> int:
    """The letter I, P or B of the frame just grabbed; 0 where this OpenCV does not tell."""
    letter = int(capture.get(cv2.CAP_PROP_FRAME_TYPE)) if hasattr(cv2, 'CAP_PROP_FRAME_TYPE') else 0
    return letter if letter in b'IPB' else 0


def _exact_keys(path: str, seen: _Seen) -> List[int]:
    """Those frames of type I at which a seek gives what the decode from frame 0 gave, there and just after."""
    places: List[int] = []
    for place, letter in enumerate(seen.types):
        if letter == ord('I') and place >= (places[-1] if places else 0) + KEYS_APART:
            places.append(place)
    step = -(-len(places) // MOST_KEYS) or 1
    return [place for place in places[::step]
            if _after_seek(path, place) == seen.checksums[place:place + SEEN_AFTER_SEEK]]


def _after_seek(path: str, place: int) -> 'array[int]':
    checksums = array('L')
    with open_capture(path) as capture:
        capture.set(cv2.CAP_PROP_POS_FRAMES, place)
        while len(checksums) < SEEN_AFTER_SEEK and capture.grab():
            checksums.append(zlib.crc32(capture.retrieve()[1].data))
    return checksums


def _content(size: Sequence[int], checksums: 'array[int]') -> str:
    """One hash of all frames."""
    if not checksums:
        return ''
    numbers = np.array([size[0], size[1]] + list(checksums), dtype='<u8')
    return hashlib.blake2b(numbers.tobytes(), digest_size=16).hexdigest()


def _frame_folder(path: str, record: Record) -> Record:
    """Frames from 1 on, up to the first gap or broken one."""
    numbers, total = set(), 0
    with os.scandir(path) as entries:
        for entry in entries:
            match = FRAME_NUMBER.match(entry.name)
            if match and FRAME_NAME % int(match.group(1)) == entry.name:
                numbers.add(int(match.group(1)))
                total += entry.stat().st_size
    checksums, size, problem = array('L'), (0, 0), ''
    for number in range(1, max(numbers, default=0) + 1):
        if number not in numbers:
            problem = '%d frames, but number %d is missing' % (len(numbers), number)
            break
        try:
            frame = RawFrames(path, number).read([number - 1])[0]
        except UnreadableClip as error:
            problem = str(error)
            break
        if checksums and frame.shape[:2] != size:
            problem = 'the frame size changes at number %d' % number
            break
        size = frame.shape[:2]
        checksums.append(zlib.crc32(frame.data))
    if not checksums:
        problem = problem or 'no frame named %s' % (FRAME_NAME % 1)
    return record._replace(facts=record.facts._replace(num_frames=len(checksums), size=total), width=size[1],
                           height=size[0], problem=problem, content=_content(size, checksums))
