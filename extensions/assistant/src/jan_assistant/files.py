"""Replacing one file so that a reader, a crash or a power cut sees the old text or the new, never a part.

Knows nothing of assistants. A lock file beside it keeps two writers (processes, or two generations of this
extension in one process) from losing each other's changes; readers need no lock: a rename is atomic.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jan_core import StorageError

__all__ = ["exclusive", "replace_file"]

PATIENCE = 5.0
"""Seconds to wait for another writer: a write takes milliseconds, so a longer hold is a hung process."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`. It is released by the system when the process dies.

    Raises StorageError when somebody else holds it for longer than a write can take; OSError.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE
        while not _try_lock(descriptor):
            if time.monotonic() > deadline:
                raise StorageError(f"{path} is locked by another process: end it, or try again", path=str(path))
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` in place of `path`; when this returns, it survives a power cut.

    Raises OSError, leaving what was there.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _rename(source: Path, target: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                os.replace(source, target)  # noqa: PTH105
            except PermissionError:  # a reader (or a virus scanner) has it open for a moment
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _sync_folder(folder: Path) -> None:
        """Windows has no such call; its file systems journal renames."""

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        # flock, not lockf: its locks belong to the open file, so two generations in one process exclude each
        # other too.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _rename(source: Path, target: Path) -> None:
        source.replace(target)

    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
