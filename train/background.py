"""One piece of work at a time beside the main thread."""

import threading
from typing import Callable, Optional


class Background:
    """Does what it is given on a thread of its own, one thing after the other."""

    def __init__(self) -> None:
        self._thread: Optional[threading.Thread] = None
        self._error: Optional[BaseException] = None

    def start(self, work: Callable[[], object]) -> None:
        """Begins a piece of work, when the one before has ended."""
        self.wait()
        self._thread = threading.Thread(target=self._do, args=(work,))
        self._thread.start()

    def wait(self) -> None:
        """Until the work has ended; raises what it raised."""
        if self._thread is not None:
            self._thread.join()
        error, self._thread, self._error = self._error, None, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:  # it belongs to the thread that waits
            self._error = error
