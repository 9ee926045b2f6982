"""The SHA-256 of the whole file, computed right behind the writers while what they wrote is still in memory.

It reads what is there from the beginning on without a gap, and says nothing of what the bytes should be.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from .partial import Partial

__all__ = ["Watermark"]

_BLOCK = 1 << 20
_LEAST = 1 << 18
"""Bytes that are worth a read of their own, unless they are the last."""


class Watermark:
    """A thread that hashes a partial file from its beginning on, as far as `ready` says (bytes without a gap).

    `size`: 0 when it is not known yet; `digest` must be told then. `wake` says that `ready` may have grown. Memory is
    one block of 1 MiB. After a restart it hashes what is there again, beside the transfer. `ready` is asked without a
    lock of this class, so it may take those of the caller. `also` gets all that is hashed, in order, in this thread.
    """

    def __init__(
        self,
        partial: Partial,
        size: int,
        ready: Callable[[], int],
        also: Callable[[memoryview], None] = lambda data: None,
    ) -> None:
        self.hashed = 0
        self._partial, self._size, self._ready, self._also = partial, size, ready, also
        self._hash = hashlib.sha256()
        self._error: Exception | None = None
        self._changed = threading.Condition()
        self._asleep = self._woken = self._closed = False
        self._thread = threading.Thread(target=self._run, name="download hash", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __enter__(self) -> Watermark:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def wake(self) -> None:
        """More may be ready. Cheap: to be called after each write."""
        self._woken = True
        if self._asleep:
            with self._changed:
                self._changed.notify_all()

    def progress(self) -> int:
        """How many bytes are hashed. Raises what ended the thread before its time: it will hash no more."""
        if self._error is not None:
            raise self._error
        return self.hashed

    def digest(self, stopped: Callable[[], bool] = lambda: False, size: int = 0) -> str:
        """Wait until all of the file is hashed; its SHA-256, or "" when `stopped` answered true or `close` was called
        before that. `size`: of the whole file, where it was not known before. Raises OSError."""
        self._size = size or self._size
        self.wake()
        with self._changed:
            while self.hashed < self._size and self._error is None and not self._closed and not stopped():
                self._changed.wait(0.25)  # the end wakes it; the time is for `stopped`, which wakes nobody
        if self._error is not None:
            raise self._error
        return self._hash.hexdigest() if self.hashed >= self._size else ""

    def close(self) -> None:
        """End the thread and wait for it. It no longer reads the file then."""
        self._closed = True
        self.wake()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        block = memoryview(bytearray(_BLOCK))
        try:
            while until := self._more():
                while self.hashed < until and not self._closed:
                    count = self._partial.readinto(block[: min(_BLOCK, until - self.hashed)], self.hashed)
                    if not count:
                        raise OSError(f"the partial file ends at {self.hashed} bytes and should have {until}")
                    self._hash.update(block[:count])
                    self._also(block[:count])
                    self.hashed += count
        except Exception as error:  # raised by `digest`, in the thread that asks for it
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _more(self) -> int:
        """Wait for more, and say how far the file can be hashed; 0 when there is nothing left to do."""
        while True:
            self._woken = False  # before it looks at anything that a waker changed
            if self._closed or self.hashed >= self._size > 0:
                return 0
            ready = min(self._ready(), self._size) if self._size else self._ready()
            if ready - self.hashed >= _LEAST or self.hashed < ready == self._size:
                return ready
            with self._changed:
                self._asleep = True  # before it looks whether it was woken: who wakes it looks the other way round
                while not self._woken:
                    self._changed.wait()
                self._asleep = False
