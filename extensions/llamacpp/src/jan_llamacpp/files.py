"""Taking a large file in: cloned, hard-linked or copied.

Knows nothing of models. A clone shares its blocks until one side is written (btrfs, XFS, bcachefs); a hard
link shares the file itself, so a program that later rewrites the source in place changes ours too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["OnBytes", "copy", "link"]

OnBytes = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all."""

_CHUNK = 16 * 1024 * 1024
_FICLONE = 0x40049409  # ioctl_ficlone(2)


def link(source: Path, target: Path) -> bool:
    """Clone the file (no space, own life) or else hard-link it; False when the file system can do neither."""
    if sys.platform == "linux":
        import fcntl

        try:
            with source.open("rb") as old, target.open("xb") as new:
                fcntl.ioctl(new.fileno(), _FICLONE, old.fileno())
            return True
        except OSError:
            target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)  # the file, where the name is a link to it
    except OSError:
        return False
    return True


async def copy(source: Path, target: Path, size: int, on_bytes: OnBytes) -> str:
    """Copy in chunks, each in a worker thread: the event loop stays free and a cancel takes effect between
    two. Returns the SHA-256 of what was copied.
    """
    import hashlib

    import anyio

    digest = hashlib.sha256()
    with source.open("rb") as old, target.open("xb") as new:

        def take(chunk: bytes) -> None:
            new.write(chunk)
            digest.update(chunk)

        done = 0
        while chunk := await anyio.to_thread.run_sync(old.read, _CHUNK):
            await anyio.to_thread.run_sync(take, chunk)
            done += len(chunk)
            on_bytes(done, size)
        new.flush()
        await anyio.to_thread.run_sync(os.fsync, new.fileno())
    return digest.hexdigest()
