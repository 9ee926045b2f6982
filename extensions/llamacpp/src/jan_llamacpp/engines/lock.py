"""One installer at a time for one build, across processes and within one.

An advisory lock on a file: flock on POSIX, msvcrt on Windows (untested). The operating system frees it when
its holder dies, so a crash never leaves a build locked. A child that gets the descriptor holds the lock as well: until
the last descendant of a killed installer is gone, nobody else writes where it wrote. The lock file itself stays; it
means nothing.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

__all__ = ["held", "held_now"]

_POLL = 0.1  # seconds


@asynccontextmanager
async def held(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[int]:
    """Hold the lock at `path`; gives its descriptor. Calls `on_wait` once when somebody else has it, then waits;
    cancellable.
    """
    import anyio

    descriptor = _open(path)
    try:
        waited = False
        while not _try(descriptor):
            if not waited:
                waited = True
                on_wait()
            await anyio.sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def held_now(path: Path) -> Iterator[None]:
    """Hold the lock at `path`, blocking this thread: for what takes a moment."""
    descriptor = _open(path)
    try:
        while not _try(descriptor):
            time.sleep(_POLL / 10)
        yield
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)


if sys.platform == "win32":

    def _try(descriptor: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _try(descriptor: int) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
