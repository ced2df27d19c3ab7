"""How far a long command is (one line that renews itself on a terminal, a line now and then elsewhere), and its end."""
import os
import select
import sys
import time
from typing import Callable, Iterable, Iterator, TextIO, TypeVar

USER_ERROR, INTERRUPTED, NOBODY_READS = 2, 130, 141  # exit codes; the last two as a shell has them for signals
SAY_EVERY = {True: 1.0, False: 10.0}  # seconds between words, on a terminal and elsewhere
T = TypeVar('T')


def with_progress(results: Iterable[T], total: int, what: str, say: Callable[[str], None]) -> Iterator[T]:
    """The results, with a word now and then: `12 of 90 examined, 0:01:20 left`."""
    began = spoke = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - spoke >= SAY_EVERY[sys.stderr.isatty()] or done == total:
            left = (total - done) * (now - began) / done
            say('%d of %d %s, %s left' % (done, total, what, _clock(left)))
            spoke = now


class BytesProgress:
    """Is told of bytes written, and says a word now and then: `1.2 of about 6.5 GB unpacked, 0:01:20 left`."""

    def __init__(self, total: int, what: str, say: Callable[[str], None]) -> None:
        self.total, self.what, self.say = total, what, say
        self.done, self.began = 0, time.monotonic()
        self.spoke = self.began

    def __call__(self, size: int) -> None:
        self.done += size
        now = time.monotonic()
        if now - self.spoke >= SAY_EVERY[sys.stderr.isatty()]:
            left = max(0, self.total - self.done) * (now - self.began) / max(1, self.done)
            self.say('%.1f of about %.1f GB %s, %s left' % (self.done / 1e9, self.total / 1e9, self.what, _clock(left)))
            self.spoke = now


def _clock(seconds: float) -> str:
    return '%d:%02d:%02d' % (seconds // 3600, seconds // 60 % 60, seconds % 60)


def say_progress(text: str) -> None:
    """Writes to standard error, over the last such line where that is a terminal; '' clears it there."""
    if sys.stderr.isatty():
        sys.stderr.write('\r\x1b[K' + text)
    elif text:
        sys.stderr.write(text + '\n')
    sys.stderr.flush()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns; after a word, USER_ERROR for what the user can mend and INTERRUPTED for Ctrl-C. Without one
    NOBODY_READS where the program behind a pipe has ended, such as `| head`.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='backslashreplace')  # for names that are no text in any alphabet
    try:
        code = run()
        print(end='', flush=True)
        return code
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _drop_what_nobody_reads():
            return NOBODY_READS
        print('error: %s' % error, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print('interrupted; the same command goes on where this one stopped', file=sys.stderr)
        return INTERRUPTED


def _drop_what_nobody_reads() -> bool:
    """Whether the reader of one of the outputs has ended; what is still held back for it then goes nowhere, else
    Python would complain of it at its end.
    """
    gone = [stream for stream in (sys.stdout, sys.stderr) if stream and _has_no_reader(stream)]
    for stream in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(gone)


def _has_no_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
