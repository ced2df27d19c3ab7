"""Films to time the input with: of UCF-101's size and rate, a textured ground and a textured square that move.

With PyAV each has one key frame, as UCF-101's; OpenCV's own writer, where PyAV is missing, makes one every 12 frames.
"""

import os
from typing import Iterator, List, Optional

import cv2
import numpy as np

from data.clip_readers import VideoFile
from data.reader import UnreadableClip
from dataset.layouts import VIDEO_ENDINGS

try:
    import av
except ImportError:
    av = None  # type: ignore[assignment]

WIDTH, HEIGHT, FRAMES, RATE = 320, 240, 180, 25
BIT_RATE = 500000  # UCF-101's
KEY_FRAME, B_FRAME = "I", "B"


def texture(state: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """A picture whose detail falls off with its frequency as a photograph's does: (height, width, 3) uint8."""
    picture = np.zeros((height, width, 3), np.float32)
    for size in (2, 4, 8, 16, 32, 64):
        coarse = state.rand(height // size + 2, width // size + 2, 3).astype(np.float32) - 0.5
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * size ** 0.7
    picture -= picture.min()
    return (picture * (255 / picture.max())).astype(np.uint8)


def scene(seed: int, frames: int = 0) -> Iterator[np.ndarray]:
    """The frames (H, W, B G R) of one film, FRAMES of them by default: the ground pans, the square circles over it, the
    sensor has noise.
    """
    state = np.random.RandomState(seed)
    ground, square = texture(state, 2 * HEIGHT, 2 * WIDTH), texture(state, 80, 80)
    for number in range(frames or FRAMES):
        centre = (WIDTH + 60 * np.sin(number / 40 + seed), HEIGHT + 50 * np.cos(number / 30))
        frame = cv2.getRectSubPix(ground, (WIDTH, HEIGHT), centre).astype(np.int16)
        left, top = int(120 + 90 * np.sin(number / 12 + seed)), int(80 + 60 * np.cos(number / 15))
        frame[top:top + 80, left:left + 80] = square
        frame += state.randint(-3, 4, frame.shape, dtype=np.int16)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def write_film(path: str, seed: int, b_frames: int, frames: int = 0) -> None:
    """One film in MPEG-4, XviD's kind. ValueError where B-frames are wanted and PyAV is missing."""
    if av is None:
        if b_frames:
            raise ValueError("--b-frames %d: OpenCV writes none; pip install av" % b_frames)
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"XVID"), RATE, (WIDTH, HEIGHT))
        for frame in scene(seed, frames):
            writer.write(frame)
        writer.release()
        return
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE, options={"g": str(max(600, frames)), "bf": str(b_frames)})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BIT_RATE
        for frame in scene(seed, frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
        container.mux(stream.encode())


def find_films(folder: str, most: int) -> List[str]:
    """The first readable video files below a folder, in the order of their names. ValueError where there is none."""
    names = (os.path.join(place, name) for place, folders, files in os.walk(folder) for name in sorted(files)
             if folders.sort() is None and name.lower().endswith(VIDEO_ENDINGS))
    found = []
    for name in names:
        try:
            VideoFile(name)
        except UnreadableClip:
            continue
        found.append(name)
        if len(found) == most:
            break
    if not found:
        raise ValueError("--data %s: no readable video file (%s) in there" % (folder, ", ".join(VIDEO_ENDINGS)))
    return found


def films_for(data: Optional[str], count: int, folder: str, b_frames: int = 0, frames: int = FRAMES) -> List[str]:
    """Up to `count` films of a folder of one's own, or that many made in `folder`. ValueError as the others."""
    if data:
        return find_films(data, count)
    films = [os.path.join(folder, "film-%d.avi" % number) for number in range(count)]
    for number, film in enumerate(films):
        write_film(film, number, b_frames, frames)
    return films


def coding(path: str) -> str:
    """How a film is coded: pixels, frames, distance of key frames, share of B-frames, kilobytes."""
    capture, kinds = cv2.VideoCapture(path, cv2.CAP_FFMPEG), ""
    size = [int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    kind_of = getattr(cv2, "CAP_PROP_FRAME_TYPE", None)
    while capture.grab():
        kinds += "?" if kind_of is None else chr(int(capture.get(kind_of)))
    words = "%dx%d, %d frames, %d kB" % (size[0], size[1], len(kinds), os.path.getsize(path) // 1000)
    if "?" in kinds:
        return words + ", GOP and B-frames not known to this OpenCV"
    keys = kinds.count(KEY_FRAME)
    gop = "one key frame" if keys == 1 else "a key frame every %.0f" % (len(kinds) / max(1, keys))
    return words + ", %s, %.0f %% B-frames" % (gop, 100 * kinds.count(B_FRAME) / max(1, len(kinds)))
