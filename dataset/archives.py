"""Opens the archives that data sets are published as: .zip, .tar (plain or compressed), .rar. They are untrusted.

Whatever an archive says, only regular files are written, only below the folder given, never over a file that is
there, and never more than the disk has room for.
"""
import contextlib
import lzma
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from functools import partial
from typing import Any, Callable, Generator, Iterator, List, NamedTuple, Optional

ENDINGS = {'.zip': 'zip', '.tar': 'tar', '.tar.gz': 'tar', '.tgz': 'tar', '.tar.bz2': 'tar', '.tar.xz': 'tar',
           '.rar': 'rar'}
RAR_TOOLS = (  # the first one that is installed unpacks
    ('unrar', ('x', '-o-', '-idq', '-p-', '--', '{archive}', '{folder}/')),
    ('unar', ('-quiet', '-no-directory', '-no-recursion', '-force-skip', '-output-directory', '{folder}', '{archive}')),
    ('bsdtar', ('-x', '-k', '-f', '{archive}', '-C', '{folder}')),
)
MOST_MEMBERS = 5000000
MOST_RATIO = 200  # of unpacked to packed bytes, beyond SMALL: films hardly shrink, bombs do
SMALL = 1 << 30
ROOM_LEFT = 1 << 28  # bytes of the disk that stay free
BLOCK = 1 << 20
LOOK_EVERY = 1.0  # seconds, at what a program of its own has unpacked
DONE = '.unpacked'  # written into the folder when it is complete
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
          ValueError, OSError)


class ArchiveError(ValueError):
    """An archive that is refused or cannot be read; the message names it and says what to do."""


class Member(NamedTuple):
    """A regular file in an archive: its path as written there, its size as stated, and how to read it."""

    path: str
    size: int
    open: Callable[[], Any]


def kind_of(path: str) -> Optional[str]:
    """'zip', 'tar' or 'rar' by the file's ending, in any case; None for what is no archive."""
    name = os.path.basename(path).lower()
    return next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)


def most_bytes(path: str) -> int:
    """To how many bytes an archive, with all archives in it, may be unpacked before it counts as a bomb."""
    return max(SMALL, MOST_RATIO * os.path.getsize(path))


def unpack(path: str, folder: str, progress: Callable[[int], None] = lambda size: None,
           limit: Optional[int] = None) -> None:
    """Unpacks an archive below `folder`. `progress` is told how many bytes were written, as it goes. `limit`: the most
    bytes, by default `most_bytes`.

    What was unpacked before is left as it is; after an interruption it goes on with the files that are missing.
    ArchiveError for an archive that is damaged, locked, would leave the folder, or does not fit the disk.
    """
    limit = most_bytes(path) if limit is None else limit
    done, state = os.path.join(folder, DONE), os.stat(path)
    stamp = '%d %d' % (state.st_size, state.st_mtime_ns)
    if os.path.exists(done):
        with open(done, encoding='utf-8') as file:
            if file.read() == stamp:
                return
    os.makedirs(folder, exist_ok=True)
    kind = kind_of(path)
    if kind == 'rar':
        _unpack_rar(path, folder, progress, limit)
    else:
        members = _zip_members if kind == 'zip' else _tar_members
        try:
            with contextlib.closing(members(path)) as found:
                _write(path, folder, found, limit, progress)
        except BROKEN as error:
            if isinstance(error, ArchiveError):
                raise
            raise ArchiveError('%s cannot be unpacked (%s); is it complete? Download it again' % (path, error))
    with open(done, 'w', encoding='utf-8') as file:
        file.write(stamp)


def _bomb(path: str, limit: int) -> ArchiveError:
    return ArchiveError('%s holds more than %.1f GiB or %d files: it looks like a bomb and is refused'
                        % (path, limit / 2 ** 30, MOST_MEMBERS))


def _write(path: str, folder: str, members: Iterator[Member], limit: int, progress: Callable[[int], None]) -> None:
    """Writes the members that are not there yet; each appears under its name when it is whole."""
    written = 0
    for number, member in enumerate(members):
        target = os.path.join(folder, *_parts(path, member.path))
        written += member.size
        if written > limit or number >= MOST_MEMBERS:
            raise _bomb(path, limit)
        if os.path.isfile(target) and os.path.getsize(target) == member.size:
            progress(member.size)
            continue
        if shutil.disk_usage(folder).free < member.size + ROOM_LEFT:
            raise ArchiveError('%s: no room for %s below %s; free some, or give --output another disk'
                               % (path, member.path, folder))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        part = target + '.part'
        with member.open() as source, open(part, 'wb') as file:
            _copy(source, file, member, path, progress)
        os.replace(part, target)


def _copy(source: Any, file: Any, member: Member, path: str, progress: Callable[[int], None]) -> None:
    """Copies as many bytes as were stated, and refuses more or fewer."""
    left = member.size
    while True:
        block = source.read(min(BLOCK, left + 1))
        if not block:
            break
        left -= len(block)
        if left < 0:
            break
        file.write(block)
        progress(len(block))
    if left:
        raise ArchiveError('%s: %s is not as long as stated; the archive is damaged, download it again'
                           % (path, member.path))


def _parts(archive: str, name: str) -> List[str]:
    """A member's path in parts. ArchiveError where it would leave the folder."""
    parts = [part for part in name.replace('\\', '/').split('/') if part not in ('', '.')]
    if not parts or '..' in parts or os.path.isabs(name) or '\0' in name or ':' in parts[0]:
        raise ArchiveError('%s: the name %r would leave the folder it is unpacked to; the archive is refused'
                           % (archive, name))
    return parts


def _zip_members(path: str) -> Generator[Member, None, None]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.filename.endswith('/') or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
                continue
            if info.flag_bits & 1:
                raise ArchiveError('%s is locked with a password; unpack it yourself, and give the folder as --source'
                                   % path)
            yield Member(info.filename, info.file_size, partial(archive.open, info))


class _TarMember(tarfile.TarInfo):
    """Tells its archive when the block that ends it was met: tarfile takes one that is cut off for a short one."""

    @classmethod
    def fromtarfile(cls, archive: Any) -> Any:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive.ended = True
            raise


def _tar_members(path: str) -> Generator[Member, None, None]:
    with tarfile.open(path, 'r|*', tarinfo=_TarMember) as archive:  # a stream: compressed ones are read once
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            if info.isreg():
                yield Member(info.name, info.size, partial(archive.extractfile, info))
        if not getattr(archive, 'ended', False):
            raise EOFError('it is cut off')


def _unpack_rar(path: str, folder: str, progress: Callable[[int], None], limit: int) -> None:
    """By a program of its own: RAR is not an open format. What it leaves is looked over afterwards."""
    tool = next((row for row in RAR_TOOLS if shutil.which(row[0])), None)
    if tool is None:
        raise ArchiveError('%s: to unpack it one of unrar, unar or bsdtar is needed (Debian, Ubuntu: apt-get install '
                           'unar), or unpack it yourself and give the folder as --source' % path)
    part = folder + '.part'
    shutil.rmtree(part, ignore_errors=True)  # of an interrupted run: nobody knows which of its files are whole
    os.makedirs(part)
    words = [word.format(archive=os.path.abspath(path), folder=os.path.abspath(part)) for word in tool[1]]
    try:
        said = _watched([tool[0]] + words, path, part, progress, limit)
    except ArchiveError:
        shutil.rmtree(part)
        raise
    if said is not None:
        shutil.rmtree(part)
        raise ArchiveError('%s cannot be unpacked by %s (%s); is it complete? Download it again'
                           % (path, tool[0], said))
    _drop_what_is_no_file(part)
    shutil.rmtree(folder)
    os.rename(part, folder)


def _sizes(folder: str) -> Iterator[int]:
    """Bytes of each file below a folder; one that is renamed meanwhile may be left out."""
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(root, name)).st_size


def _watched(command: List[str], path: str, folder: str, progress: Callable[[int], None], limit: int) -> Optional[str]:
    """Runs a program that unpacks into `folder`, and looks every second at what it has written. Its last word where it
    fails. ArchiveError where it writes too much, or fills the disk.
    """
    written = 0
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(LOOK_EVERY)
                sizes = list(_sizes(folder))
                progress(sum(sizes) - written)
                written = sum(sizes)
                if written > limit or len(sizes) > MOST_MEMBERS:
                    raise _bomb(path, limit)
                if process.returncode is not None:
                    break
                if shutil.disk_usage(folder).free < ROOM_LEFT:
                    raise ArchiveError('%s: no room below %s; free some, or give --output another disk'
                                       % (path, folder))
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        lines = errors.read().decode('utf-8', 'replace').strip().splitlines()
    return (lines or ['it says nothing'])[-1] if process.returncode else None


def _drop_what_is_no_file(folder: str) -> None:
    """Removes links, pipes and devices below a folder, which lead elsewhere or block whoever reads them."""
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            place = os.path.join(root, name)
            mode = os.lstat(place).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                os.remove(place)
