"""What makes a change survive a power cut, on each platform. It knows files and folders, nothing of downloads."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

__all__ = ["make_folder", "sync_data", "sync_file", "sync_folder"]


def sync_data(fd: int) -> None:
    """Return when the bytes of an open file are on the disk itself. Raises OSError."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone leaves the drive's cache unwritten there
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
            os.fsync(fd)  # a network file system: it has no drive to ask
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_file(path: Path) -> None:
    """Return when a file is on the disk with all that belongs to it. Raises OSError."""
    # Windows flushes only what is open for writing; elsewhere a file may be somebody else's, and reading it is enough.
    try:
        fd = os.open(path, (os.O_RDWR if sys.platform == "win32" else os.O_RDONLY) | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:
        if sys.platform != "win32":
            raise
        return  # it is read-only: another program's, and not written here
    try:
        if sys.platform == "darwin":
            sync_data(fd)
        else:
            os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on the disk. Windows keeps them by itself and has no way to ask."""
    if os.name == "posix":
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(fd)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems refuse it for a folder
                raise
        finally:
            os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
    sync_folder(folder.parent)
