"""Test films as they are, damaged, and as a data set of two classes."""
import shutil

from film_numbers import FILMS


def damaged(name, target, start, stop, byte=0):
    """A copy of a film whose bytes from start to stop are all `byte`; stop None cuts it off at start."""
    data = bytearray((FILMS / name).read_bytes())
    data[start:] = b"" if stop is None else bytes([byte] * (stop - start)) + bytes(data[stop:])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(bytes(data))
    return target


def film_set(root):
    """A sound data set for `folder`: classes a and b, five different films."""
    for name, place in (("xvid_no_b.avi", "train/a/one.avi"), ("xvid_packed_b.avi", "train/b/two.avi"),
                        ("mpeg4_gop12.avi", "train/b/three.avi"), ("h264_b.mp4", "test/a/four.mp4"),
                        ("mjpeg.avi", "test/b/five.avi")):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(FILMS / name), str(root / place))
    return root
