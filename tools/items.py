"""What is to be predicted: from words of the command line (files, folders, patterns, a list on standard input) to
videos, each a file or a folder of frames.
"""
import glob
import os
from typing import Iterable, List, NamedTuple, Set

from dataset.layouts import VIDEO_ENDINGS

FIRST_FRAME = {"rawframes": "img_00001.jpg", "flow": "flow_x_00001.jpg"}  # what a folder of frames holds
WILD = "*?["


class Item(NamedTuple):
    """One video, `path` as it was said; `kind` as of VideoList."""

    path: str
    kind: str


def find_items(words: Iterable[str], listed: Iterable[str], modality: str = "rgb") -> List[Item]:
    """The videos that the words mean, in order. `-` stands for the paths in `listed`; one that leads nowhere stays, and
    becomes an error of its own. ValueError for a word that leads nowhere, or for a film where flow is wanted.
    """
    items: List[Item] = []
    for word in words:
        if word == "-":
            for path in _paths_of("".join(listed)):
                items += _of_path(path, modality) or [Item(path, _kind_of_files(modality))]
            continue
        found = _of_path(word, modality)
        if not found and any(letter in word for letter in WILD):
            found = [item for path in sorted(glob.glob(word, recursive=True)) for item in _of_path(path, modality)]
        if not found:
            raise ValueError(_nothing_at(word, modality))
        items += found
    if not items:
        raise ValueError("PATH -: standard input names no video; it takes one path a line")
    return items


def _paths_of(text: str) -> List[str]:
    """The paths of a list, one a line; or with a zero byte behind each, as of `find -print0`."""
    paths = text.split("\0") if "\0" in text else [line.rstrip("\r") for line in text.split("\n")]
    return [path for path in paths if path]


def _nothing_at(word: str, modality: str) -> str:
    wanted = "folder of flow (flow_x_00001.jpg …)" if modality == "flow" else "video"
    if os.path.isfile(word):
        return ("%s is a film, and the network wants optical flow: give the folder that python -m dataset.prepare "
                "--flow made of it" % word)
    if os.path.isdir(word):
        return "%s: no %s in this folder; its files may end with %s" % (word, wanted, " ".join(VIDEO_ENDINGS))
    return "%s: no such %s, folder or pattern of files" % (word, wanted)


def _kind_of_files(modality: str) -> str:
    return "flow" if modality == "flow" else "video"


def _of_path(path: str, modality: str) -> List[Item]:
    """The videos at a path; none where there is nothing, or a film where flow is wanted."""
    if os.path.isfile(path) and modality != "flow":
        return [Item(path, "video")]
    return _of_folder(path, modality, set()) if os.path.isdir(path) else []


def _of_folder(folder: str, modality: str, seen: Set[str]) -> List[Item]:
    """The videos in a folder and the folders below it, by name; each folder once, wherever links lead."""
    real = os.path.realpath(folder)
    if real in seen:
        return []
    seen.add(real)
    kind = "flow" if modality == "flow" else "rawframes"
    if os.path.isfile(os.path.join(folder, FIRST_FRAME[kind])):
        return [Item(folder, kind)]
    items: List[Item] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                items += _of_folder(entry.path, modality, seen)
            elif modality != "flow" and entry.name.lower().endswith(VIDEO_ENDINGS):
                items.append(Item(entry.path, "video"))
    return items
