"""Ways to move bytes over a pair of file descriptors, behind one interface (`Transport`). They know no messages.

`LoopTransport`: the event loop's own readers and writers on non-blocking descriptors, for pipes and sockets on POSIX.
`ThreadTransport`: a reader and a writer thread, for everything an event loop cannot wait for: files, terminals, and
all of Windows (written from documentation, not run there; the tests run it on Linux).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

__all__ = ["LoopTransport", "ThreadTransport", "Transport"]

READ_SIZE = 64 << 10
"""What a pipe holds. asyncio's own 256 KiB makes every read map and unmap memory (17 µs a round trip against 7)."""

HIGH_WATER = 1 << 20
"""Unsent bytes past which streams wait for the client to read."""

INPUT_STOP = 8 << 20
"""Unsent bytes past which nothing more is read: a client that asks without reading answers must not fill the memory."""


class Transport(Protocol):
    """Where bytes go. `write` never blocks; past its high-water mark `blocked` is true until the reader caught up."""

    @property
    def blocked(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    async def drained(self) -> None:
        """Wait until not blocked."""
        ...


class LoopTransport:
    """Non-blocking descriptors on the event loop."""

    def __init__(self, read: int, write: int, closed: Callable[[], None]) -> None:
        self._read, self._write, self._closed = read, write, closed
        self._loop = asyncio.get_running_loop()
        self._pending = bytearray()
        self._empty = asyncio.Event()
        self._empty.set()
        self._room = asyncio.Event()
        self._room.set()
        self._reading = self._held = False
        os.set_blocking(read, False)
        os.set_blocking(write, False)

    @property
    def blocked(self) -> bool:
        return not self._room.is_set()

    def start(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        self._resume_reading()

    def _resume_reading(self) -> None:
        self._reading = True
        self._loop.add_reader(self._read, self._readable)

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

    def stop_reading(self) -> None:
        """Take no more input. It is not told of its end either then: the parent's death still is."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._read)

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
            self._room.clear()
        if len(self._pending) > INPUT_STOP and self._reading:
            self._held = True
            self.stop_reading()

    def _writable(self) -> None:
        sent = self._try(memoryview(self._pending)[:READ_SIZE])
        del self._pending[:sent]
        if len(self._pending) <= HIGH_WATER // 4:
            self._room.set()
            if self._held:
                self._held = False
                self._resume_reading()
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
        """Forget what was not taken."""
        if self._pending:
            self._loop.remove_writer(self._write)

    async def drained(self) -> None:
        await self._room.wait()

    async def flushed(self) -> None:
        await self._empty.wait()


class ThreadTransport:
    """A reader and a writer thread, for descriptors that an event loop cannot wait for.

    The reader sits in a blocking read that nothing can interrupt; it is a daemon and ends with its input or the
    process.
    """

    def __init__(self, read: int, write: int, closed: Callable[[], None]) -> None:
        self._read, self._write, self._closed = read, write, closed
        self._loop = asyncio.get_running_loop()
        self._condition = threading.Condition()
        self._pending: list[bytes] = []
        self._size = 0
        self._stopped = self._stopping = False
        self._taken = threading.Semaphore(4)
        """Chunks on their way to the loop: the next is read when one of them was looked at."""
        self._held = 0
        if sys.platform != "win32":
            os.set_blocking(read, True)  # a shell may have handed over a non-blocking one
        self._empty = asyncio.Event()
        self._empty.set()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def blocked(self) -> bool:
        return not self._room.is_set()

    def start(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        threading.Thread(target=self._reader, name="rpc-reader", daemon=True).start()
        threading.Thread(target=self._writer, name="rpc-writer", daemon=True).start()

    def stop_reading(self) -> None:
        self._stopped = True

    def _call(self, function: Callable[..., None], *args: bytes) -> bool:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is closed: the process is ending
            return False
        return True

    def _received(self, data: bytes) -> None:
        if not self._stopped:
            self._feed(data)
        if self._size > INPUT_STOP:
            self._held += 1  # let go when the client has read
        else:
            self._taken.release()

    def _reader(self) -> None:
        while True:
            try:
                data = os.read(self._read, READ_SIZE)
            except OSError:
                data = b""
            if not data:
                self._call(self._closed)
                return
            self._taken.acquire()
            if not self._call(self._received, data):
                return

    def write(self, data: bytes) -> None:
        with self._condition:
            self._pending.append(data)
            self._size += len(data)
            if self._size > HIGH_WATER:
                self._room.clear()
            self._empty.clear()
            self._condition.notify()

    def _writer(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._pending or self._stopping)
                if not self._pending:
                    return
                data, self._pending = b"".join(self._pending), []
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._write, view[:READ_SIZE]) :]
                except OSError:
                    self._call(self._closed)
                    break
            with self._condition:
                self._size -= len(data)
            if not self._call(self._written):
                return

    def _written(self) -> None:
        if self._size <= HIGH_WATER // 4:
            self._room.set()
            held, self._held = self._held, 0
            for _ in range(held):
                self._taken.release()
        if not self._size:
            self._empty.set()

    def close(self) -> None:
        """End the writer once it has written what there is."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    async def drained(self) -> None:
        await self._room.wait()

    async def flushed(self) -> None:
        await self._empty.wait()
