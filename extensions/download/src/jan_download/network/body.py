"""The body of one response, read into the caller's buffers. What its head says was checked before it came to be."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

from .errors import Unreachable
from .translate import translated

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

__all__ = ["Body"]


class Body:
    """The bytes `first` to `last` (inclusive; -1: its end is not known) of a file of `total` bytes (-1: unknown).

    `ranged`: it is a part that was asked for (206), not the whole file. `validator`: what tells this version of it
    from others, "" when nothing does. `host`: who sends it. One thread reads; any may interrupt.
    """

    def __init__(
        self,
        response: HTTPResponse,
        *,
        host: str,
        first: int,
        last: int,
        total: int,
        ranged: bool,
        validator: str,
    ) -> None:
        self.host, self.first, self.last, self.total = host, first, last, total
        self.ranged, self.validator = ranged, validator
        self._left = last - first + 1 if last >= 0 else -1
        self._response = response
        self._socket = _socket_of(response)
        self._lock = threading.Lock()
        self._interrupted = self._ended = False
        # The standard library's response below urllib3's can read into a buffer that is there, without the copy and the
        # megabyte of fresh memory for each read that urllib3's own read1 costs. Chunked bodies go through urllib3.
        below: Any = getattr(response, "_original_response", None)
        self._below = below if self._left > 0 and not getattr(below, "chunked", True) else None

    def readinto(self, buffer: memoryview) -> int:
        """Put what has arrived into `buffer`, waiting for the first byte only; returns how many bytes, 0 at the end.

        Raises Unreachable when the connection breaks, stalls or was interrupted, and when the body is shorter than its
        head said.
        """
        if self._ended or not buffer:
            return 0
        if 0 <= self._left < len(buffer):
            buffer = buffer[: self._left]
        with translated(self.host):
            count = self._read(buffer) if self._left else 0
        if self._interrupted:
            raise Unreachable(f"{self.host}: the transfer was interrupted")
        if not count and self._left > 0:
            raise Unreachable(f"{self.host}: the connection broke")
        if self._left > 0:
            self._left -= count
        if not count or not self._left:
            self._end()
        return count

    def interrupt(self) -> None:
        """Make a `readinto` in another thread raise at once. May be called at any time, by any thread."""
        with self._lock:
            self._interrupted = True
            if self._socket is not None and not self._ended:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown: after that a read would give what is left undecrypted.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it. The connection is kept for the next request only where the body was read to its end."""
        with self._lock:
            ended, self._ended, self._socket = self._ended, True, None
        if not ended:
            self._response.close()

    @property
    def closed(self) -> bool:
        """Whether there is nothing left to read or to interrupt."""
        return self._ended

    def _read(self, buffer: memoryview) -> int:
        if self._below is not None:
            stream = self._below.fp
            count: int = stream.readinto1(buffer) if stream is not None else 0
            return count
        data = self._response.read1(len(buffer), decode_content=False) or b""
        buffer[: len(data)] = data
        return len(data)

    def _end(self) -> None:
        """Give the connection back: somebody else may have it from now on."""
        with self._lock:
            self._ended, self._socket = True, None
        if self._below is not None:
            self._below.close()
        elif not self._response.closed:
            self._response.close()
        self._response.release_conn()


def _socket_of(response: HTTPResponse) -> socket.socket | None:
    found = getattr(getattr(response, "_sock_shutdown", None), "__self__", None)
    found = getattr(found, "socket", found)  # TLS within TLS, through an https proxy
    return found if isinstance(found, socket.socket) else None
