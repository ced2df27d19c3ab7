"""What the tools write: files that are whole or not there, and words that are safe on a terminal."""
import os
from pathlib import Path
from typing import Optional

from train.files import write_atomically

OPEN_FILES = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")


def check_writable(name: str, path: Optional[str]) -> None:
    """ValueError that names the option where its file, if any, cannot be one; - is standard output."""
    if not path or path == "-" or _is_special(path):
        return
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path) or not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise ValueError("--%s %s: cannot be written; name a file in a folder that exists and may be written to"
                         % (name, path))


def make_folder(name: str, path: Optional[str]) -> None:
    """Makes the folder of an option, if any. ValueError that names the option where it cannot be filled."""
    if not path:
        return
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise ValueError("--%s %s: cannot be made a folder (%s)" % (name, path, error.strerror)) from None
    if not os.access(path, os.W_OK):
        raise ValueError("--%s %s: this folder may not be written to" % (name, path))


def _is_special(path: str) -> bool:
    """Whether this is a pipe, a device or an open file of this process, whose place no other file may take."""
    return path.startswith(OPEN_FILES) or (
        os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def write_whole(path: str, data: bytes) -> None:
    """A file, whole or not at all, at the place that a link leads to. OSError where it cannot be."""
    if _is_special(path):
        with open(path, "wb") as file:
            file.write(data)
    else:
        write_atomically(data, Path(os.path.realpath(path)))


def shown(text: str) -> str:
    """Names as others chose them, for a line on a terminal: what is no letter, sign or space stands there by its code.
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
