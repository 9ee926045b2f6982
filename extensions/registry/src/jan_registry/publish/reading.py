"""Reading what lies in a folder that others write to, too: plain files only, and of them no more than is useful.

A pipe, a device or a socket in the place of a file, or a link to one, would be waited for without end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["contents", "plain_file"]


@contextlib.contextmanager
def plain_file(path: Path) -> Iterator[BinaryIO]:
    """Open a plain file for reading. Raises OSError, also for whatever is none, which is not opened."""
    _refuse(path, path.stat().st_mode)
    # Without blocking: it may have become something else between the look and the opening.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        _refuse(path, os.fstat(descriptor).st_mode)
        yield file


def contents(path: Path, limit: int = 1 << 20) -> bytes:
    """A plain file's bytes. Raises OSError, also when there are more than `limit`."""
    with plain_file(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit} bytes", str(path))
        return file.read()


def _refuse(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a plain file", str(path))
