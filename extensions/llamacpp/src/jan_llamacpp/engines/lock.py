"""One installer at a time for one build, across processes and within one.

An advisory lock on a file: flock on POSIX, msvcrt on Windows (untested). The operating system frees it when
its holder dies, so a crash never leaves a build locked. The lock file itself stays; it means nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["held"]

_POLL = 0.1  # seconds


@asynccontextmanager
async def held(path: Path, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Hold the lock at `path`. Calls `on_wait` once when somebody else has it, then waits; cancellable."""
    import anyio

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        waited = False
        while not _try(descriptor):
            if not waited:
                waited = True
                on_wait()
            await anyio.sleep(_POLL)
        yield
    finally:
        os.close(descriptor)


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
