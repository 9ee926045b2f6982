"""A body of which nobody knows where it ends, from its beginning on: nothing of it can be resumed or shared.

The same interface to the disk as `fetching`, and none of its choices: one response, one connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from .stop import Stop

if TYPE_CHECKING:
    from ..limits import Limits
    from ..network.body import Body
    from ..storage.partial import Partial

__all__ = ["Stream"]

_BUFFER = 1 << 20
_TELL = 0.25


class Stream:
    """`written`: bytes that are in the file, all of them from its beginning on. `tell` as in `Fetching`."""

    def __init__(self, body: Body, partial: Partial, limits: Limits, stop: Stop, tell: Callable[[], None]) -> None:
        self.written = 0
        self._body, self._partial, self._limits, self._stop, self._tell = body, partial, limits, stop, tell
        self._over = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None

    def run(self) -> int:
        """Return when it has ended; how many bytes it had. Raises Stopped, Unreachable, OSError."""
        with self._stop.calling(self._halt):
            thread = threading.Thread(target=self._work, name="download connection", daemon=True)
            thread.start()
            while not self._ended.wait(_TELL):
                self._tell()
        self._stop.check()
        if self._error is not None:
            raise self._error
        return self.written

    def fail(self, error: Exception) -> None:
        """End with an error that came from elsewhere."""
        self._error = self._error or error
        self._halt()

    def _halt(self) -> None:
        self._over.set()
        self._body.interrupt()

    def _work(self) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        try:
            while not self._over.is_set():
                count = self._body.readinto(buffer[: self._limits.grain(_BUFFER)])
                if not count:
                    break
                self._limits.spend(count, self._over.wait)
                self._partial.write(buffer[:count], self.written)
                self.written += count
        except Exception as error:  # raised by `run`, in its thread
            self._error = self._error or error
        finally:
            self._body.close()
            self._ended.set()
