"""The test films and what their frames say: eight blocks along the top edge, most significant bit left, white = 1."""
import struct
from pathlib import Path

import cv2

UNIT = Path(__file__).resolve().parent
FILMS = UNIT / "films"
FRAMES = {"xvid_no_b.avi": 72, "xvid_packed_b.avi": 70, "mpeg4_plain_b.avi": 72, "mpeg4_gop12.avi": 72,
          "h264_b.mp4": 72, "mjpeg.avi": 72}


def said_index(frame):
    """The number that a frame (H, W, C) of a film states."""
    return sum(int(frame[8, 8 + 16 * bit].mean() > 128) << (7 - bit) for bit in range(8))


def decode_all(path):
    """Every frame from frame 0 on, BGR, by OpenCV alone."""
    capture, frames = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG), []
    while True:
        decoded, frame = capture.read()
        if not decoded:
            return frames
        frames.append(frame)


def audio_only_avi():
    """A well-formed AVI file with one stream, of sound."""
    def chunk(name, data):
        return name + struct.pack("<I", len(data)) + data
    main = chunk(b"avih", struct.pack("<14I", 40000, 8000, 0, 0x10, 1, 0, 1, 8000, 0, 0, 0, 0, 0, 0))
    head = chunk(b"strh", b"auds" + struct.pack("<IIHH8I4h", 0, 0, 0, 0, 0, 1, 8000, 0, 8000, 8000, 0, 1, *[0] * 4))
    form = chunk(b"strf", struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8))
    lists = chunk(b"LIST", b"hdrl" + main + chunk(b"LIST", b"strl" + head + form))
    return chunk(b"RIFF", b"AVI " + lists + chunk(b"LIST", b"movi" + chunk(b"01wb", bytes(8000))))


def write_frames(folder, frames, numbers=None):
    """BGR frames as img_00001.jpg, ... in a new folder."""
    folder.mkdir(parents=True)
    for number, frame in zip(numbers or range(1, len(frames) + 1), frames):
        assert cv2.imwrite(str(folder / ("img_%05d.jpg" % number)), frame, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return folder
