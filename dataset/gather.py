"""What lies in the sources that a user gives: videos and annotation files, archives within unpacked on the way."""
import os
from typing import Callable, Iterator, List, NamedTuple, Sequence

from dataset.archives import ArchiveError, kind_of, unpack
from dataset.layouts import VIDEO_ENDINGS

UNPACKED = '.unpacked'  # below the output; goes when all is in place
MOST_NESTED = 3  # archives in archives: HMDB-51 is a .rar of .rar files
LIST_ENDINGS = ('.txt', '.csv')
Say = Callable[[str], None]


class Gathered(NamedTuple):
    """Files by what they are: (where it lies, its path as the source names it)."""

    videos: List['Item']
    lists: List['Item']


class Item(NamedTuple):
    """A file: where it lies now, and its path in the source, parts of archives' names left out."""

    place: str
    name: str


def gather(sources: Sequence[str], output: str, say: Say) -> Gathered:
    """All videos and lists of the sources (folders, archives, files). FileNotFoundError for a source that is not
    there, ArchiveError for an archive that is refused, ValueError where there is no video.
    """
    found = Gathered([], [])
    for source in sources:
        if not os.path.exists(source):
            raise FileNotFoundError('--source %s: nothing is there' % source)
        if os.path.isdir(source):
            _take(source, output, found, say, 0)
        else:
            _take_file(Item(os.path.abspath(source), os.path.basename(source)), output, found, say, 0)
    if not found.videos:
        raise ValueError('--source %s: no video in it (files ending in %s), nor in archives (.zip, .tar, .tar.gz, .rar)'
                         % (' '.join(sources), ', '.join(VIDEO_ENDINGS)))
    return found


def _take(folder: str, output: str, found: Gathered, say: Say, depth: int) -> None:
    """Takes what lies below a folder; links that lead out of it are not followed."""
    for item in _files_below(os.path.abspath(folder), os.path.abspath(output)):
        _take_file(item, output, found, say, depth)


def _files_below(folder: str, output: str) -> Iterator[Item]:
    inside = os.path.realpath(folder) + os.sep
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders
                            if not name.startswith('.') and os.path.join(root, name) != output)
        for name in sorted(files):
            place = os.path.join(root, name)
            if not name.startswith('.') and os.path.isfile(place) and os.path.realpath(place).startswith(inside):
                yield Item(place, os.path.relpath(place, folder).replace(os.sep, '/'))


def _take_file(item: Item, output: str, found: Gathered, say: Say, depth: int) -> None:
    lower = item.name.lower()
    if kind_of(item.name) is not None:
        if depth >= MOST_NESTED:
            raise ArchiveError('%s: archives in archives, over %d deep; unpack it yourself, and give the folder as '
                               '--source' % (item.place, MOST_NESTED))
        folder = os.path.join(output, UNPACKED, item.name.replace('/', '_')) if depth == 0 else item.place + '.d'
        say('unpacking %s' % item.place)
        unpack(item.place, folder)
        inner = Gathered([], [])
        _take(folder, output, inner, say, depth + 1)
        below = os.path.dirname(item.name)
        if depth:  # the class folders may be inside the inner archive, or be its name
            below = os.path.join(below, os.path.basename(item.name).split('.')[0])
        for inner_part, part in zip(inner, found):
            part.extend(one._replace(name=os.path.join(below, one.name)) for one in inner_part)
    elif lower.endswith(VIDEO_ENDINGS):
        found.videos.append(item)
    elif lower.endswith(LIST_ENDINGS):
        found.lists.append(item)
