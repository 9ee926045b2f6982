"""Holds on the sockets of one run, so that any thread can end what another one waits for: a handshake, a head, a body.

Nothing here reads or writes.
"""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import threading
from collections.abc import Callable, Iterator

__all__ = ["Deadline", "Line", "Lines", "deadline"]


class Line:
    """A hold on one connection: the duplicate of its socket, which works whatever TLS or proxies wrap around it.

    `ended`: somebody ended it; what a read finds after that means nothing.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._hold: socket.socket | None = None
        self._hold = sock.dup()
        self._ready = _readiness(self._hold)

    def end(self) -> None:
        """Make whoever reads, writes or connects on it fail at once."""
        self.ended = True
        with self._lock, contextlib.suppress(OSError):
            if self._hold is not None:
                self._hold.shutdown(socket.SHUT_RDWR)

    def ready(self) -> bool:
        """Whether something has arrived that was not read yet, or the end."""
        with self._lock:
            return self._hold is not None and self._ready()

    def close(self) -> None:
        """Nobody reads from it any more: let go of the duplicate, which keeps the connection open."""
        with self._lock:
            hold, self._hold = self._hold, None
        if hold is not None:
            with hold, contextlib.suppress(OSError):
                hold.shutdown(socket.SHUT_RDWR)

    def __del__(self) -> None:
        self.close()


def _readiness(sock: socket.socket) -> Callable[[], bool]:
    """Asks whether there is something to read; made once, since it is asked for each record of TLS."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return lambda: bool(poll.poll(0))
    return lambda: bool(select.select([sock], [], [], 0)[0])


class Lines:
    """All that one run holds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self.closed = threading.Event()

    def hold(self, sock: socket.socket) -> Line:
        """A hold on a socket. Raises ConnectionAbortedError when everything is over."""
        line = Line(sock)
        with self._lock:
            closed = self.closed.is_set()
            if not closed:
                self._lines.add(line)
        if closed:
            line.close()
            self.check()
        return line

    def drop(self, line: Line) -> None:
        """End a connection and forget it."""
        with self._lock:
            self._lines.discard(line)
        line.close()

    def check(self) -> None:
        """Raises ConnectionAbortedError when everything is over."""
        if self.closed.is_set():
            raise ConnectionAbortedError("the transfer was interrupted")

    def close(self) -> None:
        """End everything, now and from now on."""
        with self._lock:
            self.closed.set()
            lines = list(self._lines)
        for line in lines:
            line.end()


class Deadline:
    """Ends a line when its time is over. The line may come later than the deadline was set."""

    def __init__(self) -> None:
        self.passed = False
        self._line: Line | None = None
        self._lock = threading.Lock()

    def watch(self, line: Line | None) -> None:
        with self._lock:
            self._line = line
            passed = self.passed
        if passed and line is not None:
            line.end()

    def pass_(self) -> None:
        with self._lock:
            self.passed = True
            line = self._line
        if line is not None:
            line.end()


@contextlib.contextmanager
def deadline(seconds: float) -> Iterator[Deadline]:
    """End the line that is watched inside after `seconds`; raises TimeoutError for the OSError that comes of it.

    The timeout of a socket is no such thing: a server that sends a byte every few seconds never meets it.
    """
    it = Deadline()
    timer = threading.Timer(seconds, it.pass_)
    timer.daemon = True
    timer.start()
    try:
        yield it
    except (OSError, http.client.HTTPException) as error:
        if it.passed:
            raise TimeoutError("timed out") from error
        raise
    finally:
        timer.cancel()
