"""A body of which nobody knows where it ends, from its beginning on: nothing of it can be resumed or shared.

Beside `fetching` it is what one response and one connection need, and has none of its choices.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..records import Piece
from ..storage.watermark import Watermark
from .ledger import Ledger
from .stop import Stop

if TYPE_CHECKING:
    from ..limits import Limits
    from ..network.body import Body
    from ..storage.partial import Partial

__all__ = ["Stream"]

_BUFFER = 1 << 20
_TELL = 0.25


class Stream:
    """`written`: bytes that are in the file, all of them from its beginning on."""

    def __init__(self, body: Body, partial: Partial, limits: Limits, stop: Stop) -> None:
        self.written = 0
        self._body, self._partial, self._limits, self._stop = body, partial, limits, stop
        self._over = threading.Event()
        self._ended = threading.Event()
        self._error: Exception | None = None

    def bring(self, ledger: Ledger, reserve: int, tell: Callable[[], None]) -> str:
        """Write it all; its SHA-256. `tell` is called about four times a second; `reserve`: bytes of the disk to leave
        alone. Raises Stopped, Superseded, Unreachable, DiskFull, OSError."""
        self._partial.truncate(0)

        def collect() -> tuple[list[Piece], dict[str, int]]:
            watermark.wake()
            high = max(ledger.job.high, self.written)
            return [], {"high": high} if high != ledger.job.high else {}

        with Watermark(self._partial, 0, lambda: self.written) as watermark:
            try:
                with ledger.checkpoints(self._partial, reserve, collect, self.fail):
                    self._run(tell)
            except BaseException:
                self._partial.truncate(0)  # it is of no use, and may have filled the disk
                ledger.update(discarded=ledger.job.discarded + self.written)
                raise
            ledger.update(state="verifying", total=self.written)
            return self._stop.unless_stopped(watermark.digest(self._stop.is_set, self.written))

    def fail(self, error: Exception) -> None:
        """End with an error that came from elsewhere."""
        self._error = self._error or error
        self._halt()

    def _run(self, tell: Callable[[], None]) -> None:
        with self._stop.calling(self._halt):
            thread = threading.Thread(target=self._work, name="download connection", daemon=True)
            thread.start()
            while not self._ended.wait(_TELL):
                tell()
        self._stop.check()
        if self._error is not None:
            raise self._error

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
