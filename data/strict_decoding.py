"""How many frames of a video file are sound, from frame 0 on: decoded by PyAV, where it is installed, with errors
neither concealed nor skipped.

OpenCV conceals damage without a word and cannot be told not to: its options never reach FFmpeg's decoders.
"""
import heapq
import os
import re
from typing import Any, BinaryIO, List, NamedTuple, Optional, Tuple

from data.containers import FORMATS

try:
    import av
except ImportError:  # the loader then takes every frame that decodes
    av = None  # type: ignore[assignment]

NONE_SUSPECT = 1 << 62
MOST_REORDERED = 16  # frames; more than H.264 lets a picture wait for others
ERRORS = "explode+crccheck+bitstream+buffer"
TIMED = ("h264", "hevc")  # of which each packet in an MP4 file is a frame
PROMPT, NO_FRAME = ("mpeg4", "mjpeg"), 64  # codings without long reordering; bytes of a packet that stands for no frame
OPTIONS = {"err_detect": ERRORS, "format_whitelist": FORMATS, "protocol_whitelist": "file"}
# The chunks of an AVI file: pieces of a stream named by its number, index pieces, and the headers' own.
STREAM_CHUNK = re.compile(rb"(\d\d)(?:d[bcd]|wb|pc|tx|sb|iv)\Z")
OTHER_CHUNK = re.compile(rb"(?:ix\d\d|JUNK|idx1|indx|avih|str[hfdn]|vprp|dmlh|I[A-Z]{3}|[dD]isp|DISP)\Z")


class SoundPart(NamedTuple):
    """Frames from 0 on that decode without an error, and what is wrong after them ('' where nothing is)."""

    num_frames: int
    complaint: str


def strict_decoder() -> Optional[str]:
    """Name and version of the strict decoder, None where there is none."""
    return None if av is None else "PyAV %s" % av.__version__


def sound_part(path: str) -> SoundPart:
    """Decodes a local video file of a known container strictly, up to the first error. Raises nothing for a broken one.

    Some damage is valid to every decoder (a changed coefficient, a changed brightness) and stays unseen.
    """
    av.logging.set_level(None)
    frames = _Pass()
    try:
        frames.unbroken_pieces = _unbroken_chunks(path)
        with av.open(path, options=OPTIONS, metadata_errors="ignore") as container:
            if not container.streams.video or container.streams.video[0].codec_context is None:
                return SoundPart(0, "holds no video, or in an unknown coding")
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": ERRORS}
            stream.codec_context.thread_count = 1
            frames.times = [] if container.format.name[:3] == "mov" and stream.codec_context.name in TIMED else None
            for packet in container.demux(stream):
                frames.take(packet)
            frames.end(stream.frames)
    except (av.error.FFmpegError, OSError, ValueError, OverflowError, MemoryError) as error:
        sound = min(frames.done, frames.suspect_from)
        return SoundPart(sound, "frame %d: %s" % (sound, getattr(error, "strerror", None) or error))
    return SoundPart(frames.done, "" if frames.done else "no frame can be decoded")


class _Pass:
    """One pass over the packets: frames done, and the first one of which it is in doubt whether it is the next."""

    def __init__(self) -> None:
        self.done = self.packets = self.since_gap = 0
        self.unbroken_pieces: Optional[int] = None
        self.suspect_from = NONE_SUSPECT
        self.gap: Optional[int] = None
        self.last_time = -NONE_SUSPECT
        self.full_packets, self.packed = 0, False
        self.times: Optional[List[int]] = None  # a heap: of packets whose frames are to come, where each has one

    def take(self, packet: Any) -> None:
        """Decodes a packet. Raises ValueError or PyAV's errors where anything is wrong."""
        if packet.is_corrupt:
            raise ValueError("its packet is cut or damaged")
        if self.packets == self.unbroken_pieces:
            self._doubt(self.done)
        self._watch_gap(packet)
        if self.times is not None and packet.pts is not None:
            heapq.heappush(self.times, packet.pts)
        for frame in packet.decode():
            reordered = MOST_REORDERED if packet.stream.codec_context.has_b_frames else 0
            if frame.is_corrupt:  # those shown just before it may have been predicted from it
                self._doubt(self.done - reordered)
                raise ValueError("damaged")
            if self.times is not None and frame.pts is not None and not self._is_next(frame.pts):
                self._doubt(self.done - reordered)
                raise ValueError("the frame before it is missing")
            self.done += 1
        self.packets += packet.size > 0
        self._watch_lag(packet)

    def _doubt(self, place: int) -> None:
        self.suspect_from = max(0, min(self.suspect_from, place))

    def _is_next(self, time: int) -> bool:
        """Whether no packet before `time` is without its frame; before the first frame there may be some."""
        assert self.times is not None
        skipped = 0
        while self.times and self.times[0] <= time:
            skipped += heapq.heappop(self.times) > self.last_time
        self.last_time = time
        return skipped <= 1 or self.done == 0

    def _watch_gap(self, packet: Any) -> None:
        """An edit list drops frames at either end; one that is dropped amid others has a damaged time."""
        if packet.is_discard and self.done and self.gap is None:
            self.gap = self.done
        elif self.gap is not None and packet.size and not packet.is_discard:
            self.since_gap += 1
            if self.since_gap > MOST_REORDERED:
                self._doubt(self.gap)
                raise ValueError("the time of a frame hereabouts is damaged")

    def _watch_lag(self, packet: Any) -> None:
        """In these codings a packet gives its frame at once, or after the next one; tiny packets stand for no frame.

        Where B-frames are packed, two to a packet, nothing can be said.
        """
        codec = packet.stream.codec_context
        self.full_packets += packet.size > NO_FRAME
        self.packed = self.packed or self.done > self.full_packets
        if packet.size and codec.name in PROMPT and not self.packed and (
                self.full_packets - self.done > bool(codec.has_b_frames)):
            raise ValueError("its packet gives no frame")

    def end(self, stated: int) -> None:
        """All packets are through, of `stated` in the container's head. ValueError where one is missing."""
        if self.suspect_from < self.done and self.packets != stated:
            raise ValueError("the chain of the container's chunks is broken hereabouts")


def _unbroken_chunks(path: str) -> Optional[int]:
    """Pieces of the first video stream before the chain of an AVI file's chunks breaks; None where it does not.

    FFmpeg looks for the next chunk that it knows and says nothing, so that a damaged head of a chunk costs a frame.
    """
    streams, video, pieces, whole = 0, None, 0, os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(12)[8:] != b"AVI ":
            return None
        while True:
            name, size = _chunk(file)
            piece = STREAM_CHUNK.match(name)
            if len(name) < 4:
                return None
            if name in (b"RIFF", b"LIST"):
                file.seek(4, 1)
                continue
            if name == b"strh":
                video = streams if video is None and file.peek(4)[:4] == b"vids" else video
                streams += 1
            if not (OTHER_CHUNK.match(name) or piece and int(piece.group(1)) < streams):
                return max(0, pieces - 1)  # the size of the piece before it may be what is wrong
            if file.seek(size, 1) > whole:
                return pieces
            file.seek(size % 2, 1)
            pieces += bool(piece and int(piece.group(1)) == video and size)


def _chunk(file: BinaryIO) -> Tuple[bytes, int]:
    """Name and size of the chunk that begins here."""
    head = file.read(8)
    return head[:4], int.from_bytes(head[4:], "little")
