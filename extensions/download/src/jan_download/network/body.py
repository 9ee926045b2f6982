"""The body of one response, read into the caller's buffers. What its head says was checked before it came to be."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ..errors import BadSource
from .answers import Extent
from .errors import Changed, Unreachable
from .translate import translated

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

    from .lines import Line

__all__ = ["Body"]

_FEW = 1 << 15
"""Bytes that are worth a read: on a slow line each one would otherwise bring a packet or two."""
_LONGEST_PAUSE = 0.004
_SHORTEST_PAUSE = 0.0005
"""Seconds in which they may come; when that is less, looking again is as well."""


class Body:
    """The bytes `first` to `last` (inclusive; -1: its end is not known) of a file of `total` bytes (-1: unknown).

    `ranged`: it is a part that was asked for (206), not the whole file. `validator`: what tells this version of it
    from others, "" when nothing does. `host`: who sends it. One thread reads; any may interrupt.
    """

    def __init__(self, response: HTTPResponse, extent: Extent, host: str, most: int = 0) -> None:
        """`most`: the bytes that it may have when it does not say how many; 0 for any number."""
        self.host, self.first, self.last, self.total = host, extent.first, extent.last, extent.total
        self.ranged, self.validator = extent.ranged, extent.validator
        self._left = extent.last - extent.first + 1 if extent.last >= 0 or not extent.total else -1
        self._most, self._came = most, 0
        self._begun = time.monotonic()
        self._response = response
        self._line: Line | None = getattr(response.connection, "line", None)
        self._lock = threading.Lock()
        self._interrupted = self._closed = False
        self._late: OSError | None = None
        # The standard library's response below urllib3's can read into a buffer that is there, without the copy and the
        # fresh memory for each read that urllib3's own costs. Chunked bodies go through urllib3.
        below: Any = getattr(response, "_original_response", None)
        self._below = below if self._left > 0 and not getattr(below, "chunked", True) else None

    def readinto(self, buffer: memoryview) -> int:
        """Put what has arrived into `buffer`, waiting for the first byte only; returns how many bytes, 0 at the end.

        Raises Unreachable when the connection breaks, stalls or was interrupted, and when the body is shorter than its
        head said; BadSource when it is longer than the file, Changed when it is a shorter file.
        """
        if self._closed or not buffer:
            return 0
        if 0 <= self._left < len(buffer):
            buffer = buffer[: self._left]
        count = 0
        try:
            with translated(self.host):
                count = self._read(buffer) if self._left else 0
            if self._interrupted or (self._line is not None and self._line.ended):
                raise Unreachable(f"{self.host}: the transfer was interrupted")
            if not count and self._left:
                self._check_end()
        except Unreachable as error:
            error.brought = self._came
            raise
        self._came += count
        if self._most and self._came > self._most:
            raise BadSource(f"{self.host} sends more than {self._most} bytes", host=self.host, expected=self._most)
        if self._left > 0:
            self._left -= count
        if not count or not self._left:
            self._end()
        return count

    def interrupt(self) -> None:
        """Make a `readinto` in another thread raise at once. May be called at any time, by any thread."""
        with self._lock:
            self._interrupted = True
            if self._line is not None:
                self._line.end()

    def close(self) -> None:
        """Let go of it. The connection is kept for the next request only where the body was read to its end."""
        if not self._leave():
            self._response.close()

    def _check_end(self) -> None:
        """The body is over though its length was not reached, or is not known. Raises what that means, if anything."""
        if self._left < 0 and self._response.chunked:
            if self._came < self._most:
                text = f"{self.host} has a file of {self._came} bytes, not {self._most}"
                raise Changed(text, host=self.host, actual=self._came, expected=self._most)
        elif self._left > 0 or self._came < max(self._most, 1):  # without a length an empty file looks like a lost one
            raise Unreachable(f"{self.host}: the connection broke")

    def _read(self, buffer: memoryview) -> int:
        if self._below is None:
            data = self._response.read1(len(buffer), decode_content=False) or b""
            buffer[: len(data)] = data
            return len(data)
        if self._late is not None:
            raise self._late
        stream = self._below.fp
        count: int = stream.readinto1(buffer)
        paused = count >= _FEW
        while 0 < count < len(buffer) and self._line is not None:
            if not self._line.ready():
                if paused or not self._pause():
                    break
                paused = True
                continue
            try:
                more: int = stream.readinto1(buffer[count:])
            except OSError as error:
                self._late = error  # what came before it counts
                break
            if not more:
                break
            count += more
        return count

    def _pause(self) -> bool:
        """Let something gather; False when it comes faster than that."""
        seconds = min(_LONGEST_PAUSE, _FEW * (time.monotonic() - self._begun) / max(1, self._came))
        if seconds < _SHORTEST_PAUSE:
            return False
        time.sleep(seconds)
        return True

    def _leave(self) -> bool:
        """From now on the connection may be somebody else's. Returns whether it was so before."""
        with self._lock:
            before, self._closed, self._line = self._closed, True, None
        return before

    def _end(self) -> None:
        """The body was read to its end: give the connection back."""
        self._leave()
        if self._below is not None:
            self._below.close()
            self._response.release_conn()
        elif self._left == 0 and not self._response.closed:
            self._response.read1(1)  # nothing is left: urllib3 sees it only when it is asked
