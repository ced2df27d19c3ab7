"""What a video file may be, judged by its name and first bytes before any decoder sees it. Pure.

A file of a data set must not make the decoder open another one (playlists, lists of files) or claim memory without end.
"""
import re
from typing import Iterator, Tuple

HEAD = 8192  # bytes of a file that are looked at
MOST_SIDE, MOST_AREA = 8192, 8192 * 4320  # pixels of a frame
# First bytes of the containers that are opened: (offset, magic). Playlists and lists of files are text and match none.
MAGICS = (
    (8, b"AVI "), (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"), (4, b"skip"),
    (0, b"\x1a\x45\xdf\xa3"), (0, b"FLV\x01"), (0, b"OggS"), (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"),
    (0, b"\x00\x00\x01\xba"), (0, b"\x00\x00\x01\xb3"), (0, b"\x47\x40"),
)
# The same for FFmpeg, which else takes the word of whatever a file says of itself further on; OpenCV hands it these.
FORMATS = "avi,mov,matroska,flv,ogg,asf,mpeg,mpegts,mpegvideo"
OPENCV_OPTIONS = "format_whitelist;%s|protocol_whitelist;file" % FORMATS
# FFmpeg takes such a name with a '%' in it for a numbered series of pictures, whatever the file holds.
PICTURE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Where AVI's bitmap header, MP4's track header (16.16 pixels; versions 0 and 1) and Matroska state width and height.
AVI_SIZE = re.compile(rb"strh.{4}vids.{44,60}?strf.{8}(.{4})(.{4})", re.DOTALL)
MP4_SIZE = re.compile(rb"tkhd(?:\0.{75}|\x01.{87})(.{2})..(.{2})..", re.DOTALL)
EBML_NUMBER = rb"(?:\x81(.)|\x82(..)|\x83(...)|\x84(....))"
MATROSKA_SIZE = re.compile(rb"\xb0" + EBML_NUMBER + rb"\xba" + EBML_NUMBER, re.DOTALL)


def refusal(name: str, head: bytes) -> str:
    """Why a file with that name and those first bytes (HEAD of them) is not opened; '' where it is."""
    if not any(head[offset:offset + len(magic)] == magic for offset, magic in MAGICS):
        return "not a video file (no AVI, MP4, MOV, Matroska, WebM, MPEG, FLV, WMV or Ogg)"
    if "%" in name and name.lower().endswith(PICTURE_SUFFIXES):
        return "a video's name must not be a pattern of picture names"
    return next(filter(None, (size_refusal(width, height) for width, height in stated_sizes(head))), "")


def size_refusal(width: int, height: int) -> str:
    """Why frames of that size are not decoded; '' where they are."""
    if 0 < width <= MOST_SIDE and 0 < height <= MOST_SIDE and width * height <= MOST_AREA:
        return ""
    return "frames of %d x %d pixels; 1 to %d a side, %d in all can be read" % (width, height, MOST_SIDE, MOST_AREA)


def stated_sizes(head: bytes) -> Iterator[Tuple[int, int]]:
    """Width and height of each video track that the head of a container speaks of."""
    if head[8:12] == b"AVI ":
        for match in AVI_SIZE.finditer(head):
            width, height = (int.from_bytes(value, "little", signed=True) for value in match.groups())
            yield width, abs(height)  # negative: stored from the top down
    elif head.startswith(b"\x1a\x45\xdf\xa3"):
        for match in MATROSKA_SIZE.finditer(head):
            width, height = (int.from_bytes(value, "big") for value in match.groups() if value is not None)
            yield width, height
    else:
        for match in MP4_SIZE.finditer(head):
            width, height = (int.from_bytes(value, "big") for value in match.groups())
            if width or height:  # a track of sound has neither
                yield width, height
