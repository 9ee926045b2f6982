"""Advisory locks on files: one installer at a time, and no overlay removed under a process that uses it.

flock on POSIX, msvcrt on Windows (untested). The operating system frees them when their holder dies, so a crash never
leaves anything locked. The lock files themselves stay; they mean nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["free", "held", "share"]

_POLL = 0.1  # seconds


@asynccontextmanager
async def held(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold the lock at `path` alone. Calls `on_wait` once when somebody else has it, then waits; cancellable.

    Raises OSError.
    """
    import anyio

    descriptor = _open(path)
    try:
        waited = False
        while not _try(descriptor, shared=False):
            if not waited:
                waited = True
                on_wait()
            await anyio.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


def share(path: Path) -> int:
    """Hold the lock at `path` together with others until the returned descriptor is closed, or the process ends.

    Raises OSError.
    """
    descriptor = _open(path)
    _try(descriptor, shared=True)
    return descriptor


def free(path: Path) -> bool:
    """Whether nobody holds the lock at `path`. Raises OSError."""
    descriptor = _open(path)
    try:
        return _try(descriptor, shared=False)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)


if sys.platform == "win32":

    def _try(descriptor: int, *, shared: bool) -> bool:
        # There are no shared locks here: the first process that shares one has it alone.
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _try(descriptor: int, *, shared: bool) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
