"""Moves bytes with a reader and a writer thread, for everything an event loop cannot wait for: files, terminals, and
all of Windows (written from documentation, not run there; the tests run it on Linux). It is a `transports.Transport`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable

from .transports import FULL, HIGH_WATER, READ_SIZE

__all__ = ["ThreadTransport"]


class ThreadTransport:
    """A reader and a writer thread, for descriptors that an event loop cannot wait for.

    The reader sits in a blocking read that nothing can interrupt; it is a daemon and ends with its input or the
    process. While reading is paused the end of input is not noticed.
    """

    def __init__(self, read: int, write: int, closed: Callable[[], None]) -> None:
        self._read, self._write, self._closed = read, write, closed
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[bytes] = deque()
        self._looked_at = threading.Event()
        """Unset while as much has arrived as may wait for the loop: the reader reads on when it is set."""
        self._looked_at.set()
        self._paused = self._stopped = False
        self._out = deque[bytes]()
        self._size = 0
        """Bytes not yet written. Changed by both threads, under the lock."""
        self._lock = threading.Lock()
        self._wake = threading.Semaphore(0)
        self._stopping = self._awaited = False
        self._empty = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.blocked = self.full = False
        self._were_not_blocking: list[int] = []
        if sys.platform != "win32":  # a shell may have handed over non-blocking ones
            self._were_not_blocking = [fd for fd in {read, write} if not os.get_blocking(fd)]
            for fd in self._were_not_blocking:
                os.set_blocking(fd, True)

    def _call(self, function: Callable[[], None]) -> bool:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed: the process is ending
            return False
        return True

    # -- in ---------------------------------------------------------------------------------------------------------

    def start(self, feed: Callable[[bytes], None]) -> None:
        self._feed = feed
        threading.Thread(target=self._reader, name="rpc-reader", daemon=True).start()
        threading.Thread(target=self._writer, name="rpc-writer", daemon=True).start()

    def _reader(self) -> None:
        while True:
            try:
                data = os.read(self._read, READ_SIZE)
            except OSError:
                data = b""
            self._looked_at.wait()
            self._looked_at.clear()
            self._arrived.append(data)
            if not self._call(self._deliver) or not data:
                return

    def _deliver(self) -> None:
        while self._arrived and not self._paused:
            data = self._arrived.popleft()
            self._looked_at.set()
            if self._stopped:
                continue
            if data:
                self._feed(data)
            else:
                self._stopped = True
                self._closed()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._deliver)

    def stop_reading(self) -> None:
        self._stopped = True
        self._paused = False

    # -- out --------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        with self._lock:
            self._out.append(data)
            self._size += len(data)
        if self._size > HIGH_WATER:
            self._room.clear()
            self.blocked, self.full = True, self._size > FULL
            if self._size <= HIGH_WATER // 4:  # written in this very moment
                self._written()
        self._wake.release()

    def _writer(self) -> None:
        while True:
            self._wake.acquire()
            with self._lock:
                data = b"".join(self._out)
                self._out.clear()
            if not data:
                if self._stopping:
                    return
                continue
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(self._write, view[:READ_SIZE]) :]
                except OSError:
                    self._call(self._closed)
                    break
            with self._lock:
                self._size -= len(data)
            # Only for somebody who waits for it: waking the loop costs as much as the write. Both marks are set
            # before the size is looked at over there, as it is changed here before they are.
            if (self.blocked or self._awaited) and not self._call(self._written):
                return

    def _written(self) -> None:
        if self.blocked and self._size <= HIGH_WATER // 4:
            self.blocked = self.full = False
            self._room.set()
        if not self._size:
            self._empty.set()

    def close(self) -> None:
        """End the writer once it has written what there is, and leave the descriptors as they were found."""
        self._stopping = True
        self._wake.release()
        if sys.platform != "win32":
            for fd in self._were_not_blocking:
                with contextlib.suppress(OSError):  # it is closed already
                    os.set_blocking(fd, False)

    async def drained(self) -> None:
        await self._room.wait()

    async def flushed(self) -> None:
        self._awaited = True
        if self._size:
            await self._empty.wait()
