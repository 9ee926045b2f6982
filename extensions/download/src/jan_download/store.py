"""The folders: partial files, whole files, damaged ones; and what makes a change of them survive a power cut.

`files/` holds only what is complete and checked (as far as a hash was known), `partial/` what is on its way.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Partial", "Store", "digest_of"]

_BLOCK = 1 << 20


class Store:
    """The extension's data folder. Names passed in were checked by `names.file_name`."""

    def __init__(self, root: Path) -> None:
        self.files = root / "files"
        self.partials = root / "partial"
        self.damaged = root / "damaged"
        self._root = root

    def final(self, destination: str) -> Path:
        return self.files / destination

    def partial(self, key: str) -> Path:
        return self.partials / f"{key}.partial"

    def free(self) -> int:
        """Bytes an ordinary user may still write on this disk."""
        self._root.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self._root).free

    def publish(self, key: str, destination: str) -> Path:
        """Give a complete, synced partial its final name, durably. An existing file there is replaced in
        one step."""
        final = self.final(destination)
        self.files.mkdir(parents=True, exist_ok=True)
        self.partial(key).replace(final)
        _sync_folder(self.files)
        _sync_folder(self.partials)
        return final

    def discard(self, key: str) -> None:
        """Remove a partial file, if there is one."""
        self.partial(key).unlink(missing_ok=True)

    def set_aside(self, destination: str) -> Path:
        """Take a damaged file away from its final name, so that nobody uses it, and say where it is."""
        self.damaged.mkdir(parents=True, exist_ok=True)
        return self.final(destination).rename(self.damaged / f"{time.time_ns()}-{destination}")

    def sweep(self, keep: set[str]) -> int:
        """Remove partial files that belong to no job in `keep` (their keys); return how many."""
        strays = [p for p in self.partials.glob("*.partial") if p.name.removesuffix(".partial") not in keep]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)


class Partial:
    """A partial file that is open for writing at any offset, by any thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not path.exists()
        self._fd = os.open(
            path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o644
        )
        if fresh:
            _sync_folder(path.parent)

    def write(self, data: bytes, at: int) -> None:
        """Write all of `data` at offset `at`. Raises OSError (ENOSPC among them)."""
        view = memoryview(data)
        while view:
            if hasattr(os, "pwrite"):
                count = os.pwrite(self._fd, view, at)
            else:  # Windows: one writer moves the file pointer
                os.lseek(self._fd, at, os.SEEK_SET)
                count = os.write(self._fd, view)
            view, at = view[count:], at + count

    def truncate(self, size: int) -> None:
        os.ftruncate(self._fd, size)

    def sync(self) -> None:
        """Return when what was written before this call is on the disk itself."""
        _sync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def digest_of(
    path: Path,
    length: int | None = None,
    *,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[hashlib._Hash, int]:
    """The running SHA-256 of the first `length` bytes of a file (None: all), and how many bytes it covers.

    Covers fewer when the file is shorter, or when `stopped` answers true. A missing file covers none.
    Raises OSError.
    """
    digest, done = hashlib.sha256(), 0
    if length == 0 or not path.exists():
        return digest, 0
    with path.open("rb", buffering=0) as file:
        buffer = memoryview(bytearray(_BLOCK))
        while (length is None or done < length) and not stopped():
            count = file.readinto(buffer[: _BLOCK if length is None else min(_BLOCK, length - done)])
            if not count:
                break
            digest.update(buffer[:count])
            done += count
            progress(done)
    return digest, done


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone leaves the drive's cache unwritten there
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
