"""One partial file, open for reading and writing at any offset by any number of threads. What its bytes are worth
is not known here."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

from .durable import make_folder, sync_data, sync_folder

__all__ = ["Partial"]

_STEP = 1 << 30
_PATIENCE = 2.0


class Partial:
    """A file of `size` bytes (0: as large as it gets), made when it is not there.

    `found` is how large it was: bytes beyond that were never there, whatever somebody remembers of them. The room is
    taken from the disk at once where the file system can do that, and otherwise as it fills. Raises OSError, ENOSPC
    among them; then the file is left as it was found.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        make_folder(path.parent)
        self.path, self.size = path, size
        self._lock = threading.Lock()
        fresh = not path.exists()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
        try:
            self.found = os.fstat(self._fd).st_size
            if size:
                self._take_room(size)
            if fresh:
                sync_folder(path.parent)
        except BaseException:
            os.close(self._fd)
            raise

    def write(self, data: memoryview | bytes, at: int) -> None:
        """Write all of `data` at offset `at`. Raises OSError (ENOSPC among them)."""
        view = memoryview(data)
        while view:
            count = self._write(view, at)
            view, at = view[count:], at + count

    def readinto(self, view: memoryview, at: int) -> int:
        """Fill `view` from offset `at` on; returns how many bytes there were: fewer only at the end of the file."""
        done = 0
        while done < len(view):
            count = self._read(view[done:], at + done)
            if not count:
                break
            done += count
        return done

    def sync(self) -> None:
        """Return when what was written before this call is on the disk itself."""
        sync_data(self._fd)

    def truncate(self, size: int) -> None:
        """Cut the file off, or let it grow by zeros."""
        os.ftruncate(self._fd, size)

    def close(self) -> None:
        """Close the file; closing again does nothing. Nobody may be reading or writing any more."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, view: memoryview, at: int) -> int:
        if hasattr(os, "pwrite"):
            return os.pwrite(self._fd, view, at)
        with self._lock:  # Windows: the file has one position
            os.lseek(self._fd, at, os.SEEK_SET)
            return os.write(self._fd, view)

    def _read(self, view: memoryview, at: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._fd, [view], at)
        with self._lock:
            os.lseek(self._fd, at, os.SEEK_SET)
            data = os.read(self._fd, len(view))
        view[: len(data)] = data
        return len(data)

    def _take_room(self, size: int) -> None:
        if self.found > size:
            self.truncate(size)
        if hasattr(os, "posix_fallocate"):
            try:
                self._allocate(size)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
                    self.truncate(min(self.found, size))  # gives back what it got before there was no more
                    raise
        self.truncate(size)

    def _allocate(self, size: int) -> None:
        # Where the file system cannot do it, the C library writes into every block instead: that takes minutes for a
        # large file and brings nothing, so it is given up as soon as it shows.
        begun = time.monotonic()
        for at in range(0, size, _STEP):
            os.posix_fallocate(self._fd, at, min(_STEP, size - at))
            if time.monotonic() - begun > _PATIENCE:
                break


_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
