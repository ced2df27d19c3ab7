"""How far a long command is (one line that renews itself on a terminal, a line now and then elsewhere), and its end."""
import os
import sys
import time
from typing import Callable, Iterable, Iterator, TypeVar

USER_ERROR, INTERRUPTED = 2, 130  # exit codes
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
            say('%d of %d %s, %d:%02d:%02d left' % (done, total, what, left // 3600, left // 60 % 60, left % 60))
            spoke = now


def say_progress(text: str) -> None:
    """Writes to standard error, over the last such line where that is a terminal; '' clears it."""
    sys.stderr.write('\r\x1b[K' + text if sys.stderr.isatty() else text + '\n')
    sys.stderr.flush()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def exit_code(run: Callable[[], int]) -> int:
    """What `run` returns; after a word, USER_ERROR for what the user can mend and INTERRUPTED for Ctrl-C."""
    try:
        return run()
    except (ValueError, OSError) as error:
        print('error: %s' % error, file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print('interrupted; the same command goes on where this one stopped', file=sys.stderr)
        return INTERRUPTED
