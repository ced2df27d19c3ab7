"""How many frames of a video file are sound, from frame 0 on: decoded by PyAV, where it is installed, with errors
neither concealed nor skipped. The one importer of PyAV.

OpenCV conceals damage without a word and cannot be told not to: its options never reach FFmpeg's decoders.
"""
import os
import re
from typing import BinaryIO, NamedTuple, Optional, Tuple

try:
    import av
except ImportError:  # the loader then takes every frame that decodes
    av = None

ERRORS = "explode+crccheck+bitstream+buffer"
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
    done, packets, unbroken = 0, 0, _unbroken_chunks(path)
    before_break: Optional[int] = None
    try:
        with av.open(path, options={"err_detect": ERRORS, "protocol_whitelist": "file"}) as container:
            stream = container.streams.video[0]
            stream.codec_context.options = {"err_detect": ERRORS}
            stream.codec_context.thread_count = 1
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise ValueError("its packet is cut or damaged")
                if packets == unbroken:
                    before_break = done
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise ValueError("damaged")
                    done += 1
                packets += packet.size > 0
            whole = packets == stream.frames
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        return SoundPart(done if before_break is None else before_break, "frame %d: %s" % (done, _said(error)))
    if before_break is not None and not whole:  # a packet may be missing there, and the frames after it one off
        return SoundPart(before_break, "frame %d: the chain of the container's chunks is broken there" % before_break)
    return SoundPart(done, "" if done else "no frame can be decoded")


def _said(error: Exception) -> str:
    return "holds no video" if isinstance(error, IndexError) else str(getattr(error, "strerror", None) or error)


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
