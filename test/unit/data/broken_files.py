"""Some hundred broken video files, made from the test films by a seeded generator; and, run as a program, what the
readers make of them: the names of files arrive on standard input, a line of JSON for each leaves on standard output.
"""
import json
import os
import random
import sys
from pathlib import Path

import cv2
import numpy as np

UNIT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(UNIT), str(UNIT.parents[1])]  # as a program it has neither
from film_numbers import FILMS, audio_only_avi, decode_all, said_index  # noqa: E402

SEED = 5
FOLDER = "frames"  # the folder of JPEG files, beside the films in what is a source
VIDEOS = ("xvid_no_b.avi", "xvid_packed_b.avi", "mpeg4_plain_b.avi", "mpeg4_gop12.avi", "h264_b.mp4", "mjpeg.avi")
NEAR = 10  # levels between two versions of FFmpeg that decode the same frame to colour


def cut(content, rng):
    return content[:rng.randrange(16, len(content))]


def flip(content, rng, first=0, last=None, bits=(1, 1, 1, 4)):
    changed = bytearray(content)
    for _ in range(rng.choice(bits)):
        changed[rng.randrange(first, last or len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_head(content, rng):
    """In the first bytes of an AVI file, in the tables at an MP4 file's end."""
    first, last = (0, 2048) if content[8:12] == b"AVI " else (content.index(b"moov"), len(content))
    return flip(content, rng, first, last)


def flip_chunk(content, rng):
    """In the eight bytes before a frame of an AVI file; in an MP4 file in the length of a slice."""
    name = b"00dc" if content[8:12] == b"AVI " else b"\0\0\1"
    places = [place for place in range(2048, len(content) - 2500) if content[place:place + len(name)] == name]
    place = rng.choice(places) if places else 0
    return flip(content, rng, place, place + 8, bits=(1,))


def _block(content, rng):
    start, size = rng.randrange(16, len(content)), rng.choice((1, 7, 64, 513, 4096))
    return content[:start], content[start:start + size], content[start + size:]


def zero_block(content, rng):
    before, block, after = _block(content, rng)
    return before + bytes(len(block)) + after


def noise_block(content, rng):
    before, block, after = _block(content, rng)
    return before + bytes(rng.randrange(256) for _ in block) + after


def lose_block(content, rng):
    before, _, after = _block(content, rng)
    return before + after


def double_block(content, rng):
    before, block, after = _block(content, rng)
    return before + block + block + after


def zero_tail(content, rng):
    """As a download that reserved its space and stopped."""
    part = cut(content, rng)
    return part + bytes(len(content) - len(part))


MUTATIONS = ((cut, 9), (flip, 14), (flip_head, 6), (flip_chunk, 6), (zero_block, 3), (noise_block, 3), (lose_block, 3),
             (double_block, 2), (zero_tail, 4))
LOSSES = ("cut", "zero_tail")  # what is left of these is the film's own


def jpegs():
    """The first sixteen frames of a film as JPEG files, one of four progressive."""
    return [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_PROGRESSIVE, int(number % 4 == 3)])[1].tobytes()
            for number, frame in enumerate(decode_all(FILMS / "mjpeg.avi")[:16])]


def make_videos(root):
    """Mutated films: (file name, source, name of the mutation)."""
    rows, rng = [], random.Random(SEED)
    for source in VIDEOS:
        content = (FILMS / source).read_bytes()
        for mutate, times in MUTATIONS:
            for number in range(times):
                name = "%s_%02d_%s" % (mutate.__name__, number, source)
                (root / name).write_bytes(mutate(content, rng))
                rows.append((name, source, mutate.__name__))
    return rows


def make_folders(root):
    """Folders of JPEG files of which one file is broken, each way twice."""
    rows, rng, whole = [], random.Random(SEED), jpegs()
    changes = [mutate for mutate, _ in MUTATIONS if mutate not in (flip_head, flip_chunk)]
    changes += [flip_jpeg_head, lambda content, rng: b"", lambda content, rng: b"text\n" * 99]
    for number, mutate in enumerate(changes * 3):
        name = "folder_%02d" % number
        (root / name).mkdir()
        broken = rng.randrange(len(whole))
        for place, content in enumerate(whole):
            (root / name / ("img_%05d.jpg" % (place + 1))).write_bytes(
                mutate(content, rng) if place == broken else content)
        rows.append((name, FOLDER, mutate.__name__))
    return rows


def flip_jpeg_head(content, rng):
    return flip(content, rng, 2, 620)


def make_odd_ones(root):
    """What is no film at all, or one frame long, or cannot be reached."""
    film = (FILMS / "mjpeg.avi").read_bytes()
    (root / "empty.avi").write_bytes(b"")
    (root / "zeros.mp4").write_bytes(bytes(30000))
    (root / "text.avi").write_text("This film is not available in your country.\n" * 40)
    (root / "page.mp4").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (root / "sound.avi").write_bytes(audio_only_avi())
    (root / "magic.avi").write_bytes(b"RIFF\xff\xff\xff\xffAVI ")
    (root / "locked.avi").write_bytes(film)
    (root / "locked.avi").chmod(0)
    (root / "folder.avi").mkdir()
    os.mkfifo(str(root / "pipe.avi"))
    for name, target in (("loop.avi", "loop.avi"), ("dangling.avi", "nowhere"), ("zero_device.avi", "/dev/zero"),
                         ("system.avi", "/etc/passwd"), ("outside.avi", str(FILMS / "mjpeg.avi"))):
        (root / name).symlink_to(target)
    first = film.index(b"00dc", film.index(b"movi"))
    (root / "one_frame.avi").write_bytes(film[:film.index(b"00dc", first + 8)])
    (root / "one_picture").mkdir()
    (root / "one_picture" / "img_00001.jpg").write_bytes(jpegs()[0])
    refused = ("empty.avi", "zeros.mp4", "text.avi", "page.mp4", "sound.avi", "magic.avi", "locked.avi", "folder.avi",
               "pipe.avi", "loop.avi", "dangling.avi", "zero_device.avi", "system.avi", "missing.avi")
    rows = [(name, "mjpeg.avi", "refused") for name in refused]
    return rows + [("outside.avi", "mjpeg.avi", "sound"), ("one_frame.avi", "mjpeg.avi", "one"),
                   ("one_picture", FOLDER, "one")]


def strict_frames(path):
    """BGR frames up to the first error, by PyAV; None where it is not installed. Not the project's own strict pass."""
    try:
        import av
    except ImportError:
        return None
    av.logging.set_level(None)
    frames = []
    try:
        with av.open(str(path)) as film:
            film.streams.video[0].codec_context.options = {"err_detect": "explode"}
            film.streams.video[0].codec_context.thread_count = 1  # concealment differs with the number of threads
            for packet in film.demux(film.streams.video[0]):
                if packet.is_corrupt:
                    break
                for frame in packet.decode():
                    if frame.is_corrupt:
                        return frames
                    frames.append(frame.to_ndarray(format="bgr24"))
    except (av.error.FFmpegError, IndexError, AttributeError, ValueError):
        pass
    return frames


def differing(frames, others):
    """Places at which two lists of frames differ, the shorter one's length."""
    return [place for place, (frame, other) in enumerate(zip(frames, others))
            if frame.shape != other.shape or np.abs(frame.astype(int) - other).max() > NEAR]


def judge(path, sound, is_folder):
    """What the reader makes of a file, against the sound film and the strict decoder."""
    from data.clip_readers import UnreadableClip, open_clip
    try:
        reader = open_clip(path, "rawframes" if is_folder else "video")
        clip = reader.read(range(reader.num_frames))[..., ::-1]
    except UnreadableClip as error:
        return {"refused": error.reason, "readable": error.readable}
    strict = None if is_folder else strict_frames(path)
    return {"frames": len(clip), "unlike_sound": differing(clip, sound),
            "say_another": [place for place, frame in enumerate(clip) if frame.shape != sound[0].shape
                            or said_index(frame) != place],
            "strict": None if strict is None else len(strict),
            "unlike_strict": None if strict is None else differing(clip, strict)}


def main(root):
    """Judges the files whose names stand on standard input; as nobody, where this is root, those that are locked."""
    films = {source: decode_all(FILMS / source) for source in VIDEOS}
    films[FOLDER] = [cv2.imdecode(np.frombuffer(content, np.uint8), 1) for content in jpegs()]
    for line in sys.stdin:
        name, source, _ = json.loads(line)
        if name == "locked.avi" and os.geteuid() == 0:
            os.seteuid(65534)
        found = judge(os.path.join(root, name), films[source], source == FOLDER)
        if name == "locked.avi" and os.getuid() == 0:
            os.seteuid(0)
        print(json.dumps([name, found]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
