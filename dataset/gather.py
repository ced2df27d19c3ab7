"""What lies in the sources that a user gives: videos and annotation files, archives within unpacked on the way."""
import os
import re
import zlib
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence

from dataset.archives import ArchiveError, kind_of, most_bytes, unpack
from dataset.layouts import VIDEO_ENDINGS, some_of
from dataset.progress import BytesProgress, say_progress

UNPACKED = '.unpacked'  # below the output; goes when all is in place
MOST_NESTED = 3  # archives in archives: HMDB-51 is a .rar of .rar files
LIST_ENDINGS = ('.txt', '.csv')
NO_TEXT = re.compile('[\udc80-\udcff]')  # how Python writes such bytes
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
        search = _Search(output, say, found, 0, None)
        if os.path.isdir(source):
            _take(source, search)
        else:
            _take_file(Item(os.path.abspath(source), os.path.basename(source)), search)
    if not found.videos:
        raise ValueError('--source %s: no video in it (files ending in %s), nor in archives (.zip, .tar, .tar.gz, .rar)'
                         % (' '.join(sources), ', '.join(VIDEO_ENDINGS)))
    return found


class _Allowance:
    """How many bytes an archive, and those within it, may still be unpacked to."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> None:
        self.left -= size


class _Search(NamedTuple):
    """Where a search stands: what was found, how many archives it is in, and what the outermost of them may hold."""

    output: str
    say: Say
    found: Gathered
    depth: int
    allowance: Optional[_Allowance]


def _take(folder: str, search: _Search) -> None:
    """Takes what lies below a folder; links that lead out of it are not followed."""
    outside: List[str] = []
    for item in _files_below(os.path.abspath(folder), os.path.abspath(search.output), outside):
        _take_file(item, search)
    if outside:
        search.say('%d links lead out of %s, or nowhere, and are not followed: %s' % (len(outside), folder,
                                                                                  some_of(outside)))


def _as_text(name: str) -> str:
    """A name with bytes that are no UTF-8, of old Windows machines, written as %E9: OpenCV cannot open it else."""
    return NO_TEXT.sub(lambda found: '%%%02X' % (ord(found.group()) - 0xDC00), name)


def _files_below(folder: str, output: str, outside: List[str]) -> Iterator[Item]:
    """The files below a folder; links that lead out of it are added to `outside`."""
    inside = os.path.realpath(folder) + os.sep
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders
                            if not name.startswith('.') and os.path.join(root, name) != output)
        outside += [os.path.join(root, name) for name in folders if os.path.islink(os.path.join(root, name))]
        for name in sorted(files):
            place = os.path.join(root, name)
            if name.startswith('.'):
                continue
            if os.path.isfile(place) and os.path.realpath(place).startswith(inside):
                yield Item(place, _as_text(os.path.relpath(place, folder).replace(os.sep, '/')))
            elif os.path.islink(place):
                outside.append(place)


def _take_file(item: Item, search: _Search) -> None:
    lower = item.name.lower()
    if kind_of(item.name) is not None:
        _take_archive(item, search)
    elif lower.endswith(VIDEO_ENDINGS):
        search.found.videos.append(item)
    elif lower.endswith(LIST_ENDINGS):
        search.found.lists.append(item)


def _take_archive(item: Item, search: _Search) -> None:
    """Unpacks an archive below the output, or beside itself where it was in another, and takes what was in it."""
    if search.depth >= MOST_NESTED:
        raise ArchiveError('%s: archives in archives, over %d deep; unpack it yourself, and give the folder as '
                           '--source' % (item.place, MOST_NESTED))
    outermost = search.depth == 0
    own = '%08x-%s' % (zlib.crc32(os.fsencode(item.place)), os.path.basename(item.name))  # two may have one name
    folder = os.path.join(search.output, UNPACKED, own) if outermost else item.place + '.d'
    allowance = search.allowance or _Allowance(most_bytes(item.place))
    word = BytesProgress(os.path.getsize(item.place), 'unpacked', say_progress)

    def written(size: int) -> None:
        allowance.take(size)
        word(size)

    search.say('unpacking %s' % item.place)
    unpack(item.place, folder, written, min(allowance.left, most_bytes(item.place)))
    inner = search._replace(found=Gathered([], []), depth=search.depth + 1, allowance=allowance)
    _take(folder, inner)
    below = os.path.dirname(item.name)
    if not outermost:  # the class folders may be inside the inner archive, or be its name
        below = os.path.join(below, os.path.basename(item.name).split('.')[0])
    for inner_part, part in zip(inner.found, search.found):
        part.extend(one._replace(name=os.path.join(below, one.name)) for one in inner_part)
