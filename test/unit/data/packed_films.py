"""A small packed store of the films, made without the packer: six videos in two shards, one of them without frames."""
import io
import tarfile
import zlib

import cv2
import numpy as np
from film_numbers import FILMS, FRAMES, decode_all

from data.packed_index import FRAME, ROW, SHARD, VIDEO, Description, PackedIndex, shard_file, write_index

NAMES = sorted(FRAMES)
BROKEN = 3  # the video without frames
SHARD_OF = (0, 0, 0, 1, 1, 1)


def jpegs_of(name, frames=24):
    return [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            for frame in decode_all(FILMS / name)[:frames]]


def make_store(folder):
    """Writes the store; returns its index."""
    folder.mkdir()
    videos = np.zeros(len(NAMES), VIDEO)
    shards = np.zeros(2, SHARD)
    for number in (0, 1):
        rows, data = [], io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for video, name in enumerate(NAMES):
                if SHARD_OF[video] == number:
                    jpegs = [] if video == BROKEN else jpegs_of(name)
                    videos[video] = (number, len(jpegs), len(rows), 1000, 5)
                    for place, jpeg in enumerate(jpegs):
                        member = tarfile.TarInfo("%s/img_%05d.jpg" % (name[:-4], place + 1))
                        member.size = len(jpeg)
                        archive.addfile(member, io.BytesIO(jpeg))
                        rows.append((archive.offset - 512 * -(-len(jpeg) // 512), len(jpeg), zlib.crc32(jpeg)))
            table = np.array(rows, FRAME).tobytes()
            member = tarfile.TarInfo("frames.bin")
            member.size = len(table)
            archive.addfile(member, io.BytesIO(table))
            shards[number]["table"] = archive.offset - 512 * -(-len(table) // 512)
            shards[number]["num_frames"] = len(rows)
        shards[number]["bytes"] = len(data.getvalue())
        open(shard_file(str(folder), number), "wb").write(data.getvalue())
    train = np.array([(5, 1), (0, 0), (3, 1), (1, 0), (0, 1)], ROW)
    test = np.array([(2, 0), (4, 1)], ROW)
    described = Description("folder", ["one", "two"], 256, 90, "/nowhere", "video", {"options": "none"})
    index = PackedIndex(described, shards, videos, [name.encode() for name in NAMES], {BROKEN: "it is broken"},
                        {1: (train, test)})
    write_index(str(folder), index)
    return index
