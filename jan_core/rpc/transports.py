"""Ways to move bytes over a pair of file descriptors, behind one interface (`Transport`). They know no messages.

`LoopTransport`: the event loop's own readers and writers on non-blocking descriptors, for pipes and sockets on POSIX.
The other one is in `threads.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Callable
from typing import Protocol

__all__ = ["FULL", "HANG_UP", "HIGH_WATER", "READ_SIZE", "LoopTransport", "Transport"]

READ_SIZE = 64 << 10
"""What a pipe holds. asyncio's own 256 KiB makes every read map and unmap memory (17 µs a round trip against 7)."""

HIGH_WATER = 256 << 10
"""Unsent bytes past which streams wait for the client to read."""

FULL = 1 << 20
"""Unsent bytes past which new requests wait too: a client that asks without reading answers must not fill the
memory."""

HANG_UP: int = getattr(select, "POLLRDHUP", 0)
"""What to ask `poll` for beside the hang-up that it always tells: a socket of which only the other way is closed."""

LOOK_EVERY = 0.5
"""Seconds between looks for the end of input that is not being read."""


class Transport(Protocol):
    """Where bytes go. `write` never blocks. Past its high-water mark `blocked` is true until the reader has caught up;
    `full` is, too, when it is a good deal further behind."""

    @property
    def blocked(self) -> bool: ...

    @property
    def full(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until not blocked."""
        ...

    def pause(self) -> None:
        """Read nothing more for now. Any number of times."""
        ...

    def resume(self) -> None:
        """Read on. Any number of times."""
        ...


class LoopTransport:
    """Non-blocking descriptors on the event loop, on POSIX. `closed` is called at the end of input, or when writing
    fails."""

    def __init__(self, read: int, write: int, closed: Callable[[], None]) -> None:
        self._read, self._write, self._closed = read, write, closed
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._empty = asyncio.Event()
        self._empty.set()
        self._room = asyncio.Event()
        self._room.set()
        self.blocked = self.full = False
        self._reading = self._ended = False
        self._looking: asyncio.TimerHandle | None = None
        self._were_blocking = [fd for fd in {read, write} if os.get_blocking(fd)]
        for fd in self._were_blocking:
            os.set_blocking(fd, False)

    # -- in ---------------------------------------------------------------------------------------------------------

    def start(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self.resume()

    def _readable(self) -> None:
        try:
            data = os.read(self._read, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._feed(data)
        else:
            self.stop_reading()
            self._closed()

    def pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._read)
            self._looking = self._loop.call_later(LOOK_EVERY, self._look)

    def resume(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._read, self._readable)
            self._stop_looking()

    def _look(self) -> None:
        # A client that has gone is heard of even while nothing is read: the hang-up is told beside what is unread.
        signs = select.poll()
        signs.register(self._read, HANG_UP)
        if signs.poll(0):
            self.stop_reading()
            self._closed()
        else:
            self._looking = self._loop.call_later(LOOK_EVERY, self._look)

    def stop_reading(self) -> None:
        """Take no more input, for good. It is not told of its end either then: the parent's death still is."""
        self._ended = True
        self._stop_looking()
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._read)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    # -- out --------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self._pending:
            sent = self._try(data)
            if sent == len(data):
                return
            self._pending += memoryview(data)[sent:]
            self._empty.clear()
            self._loop.add_writer(self._write, self._writable)
        else:
            self._pending += data
        if len(self._pending) > HIGH_WATER:
            self.blocked, self.full = True, len(self._pending) > FULL
            self._room.clear()

    def _writable(self) -> None:
        sent = self._try(memoryview(self._pending)[:READ_SIZE])
        del self._pending[:sent]
        if self.blocked and len(self._pending) <= HIGH_WATER // 4:
            self.blocked = self.full = False
            self._room.set()
        if not self._pending:
            self._loop.remove_writer(self._write)
            self._empty.set()

    def _try(self, data: bytes | memoryview) -> int:
        try:
            return os.write(self._write, data)
        except BlockingIOError:
            return 0
        except OSError:
            # The client closed its end: nothing can be answered any more. Pretend it went, and end.
            self._closed()
            return len(data)

    def close(self) -> None:
        """Forget what was not taken, and leave the descriptors as they were found."""
        if self._pending:
            self._loop.remove_writer(self._write)
        for fd in self._were_blocking:
            # The mode belongs to the pipe or terminal and not to the descriptor: others may hold it too.
            with contextlib.suppress(OSError):  # it is closed already
                os.set_blocking(fd, True)

    async def drained(self) -> None:
        await self._room.wait()

    async def flushed(self) -> None:
        await self._empty.wait()
