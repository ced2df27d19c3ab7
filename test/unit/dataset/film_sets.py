"""Test films as they are, damaged, and as a data set of two classes; and a command that is stopped."""
import multiprocessing
import os
import shutil
import signal
import sys
import time

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


def stop_when(seen, run, how=signal.SIGKILL):
    """Runs a command in a process of its own, and sends that a signal as soon as something is seen, after 20 seconds at
    most. The exit code; minus the signal where that ended it.
    """
    def hearing_interrupts():  # a shell starts its background jobs deaf to them
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(run())

    process = multiprocessing.get_context("fork").Process(target=hearing_interrupts)
    process.start()
    for _ in range(1000):
        if seen() or not process.is_alive():
            break
        time.sleep(0.02)
    os.kill(process.pid, how)
    process.join()
    return process.exitcode
