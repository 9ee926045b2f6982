"""What a journal that cannot be read or written is to be called. No SQLite is loaded for that."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from jan_core import StorageError

__all__ = ["failure", "lacks_room"]

_FULL, _IO_ERROR = 13, 10
"""SQLite's codes for a disk that is full, and for one that may be: where no file can grow it says only this."""
_ROOM = 64 << 10
"""Bytes that must be free for anything to be written."""


def failure(path: Path, error: Exception) -> StorageError:
    """What a caller is told."""
    code = _code(error)
    full = code == _FULL or (code == _IO_ERROR and shutil.disk_usage(path.parent).free < _ROOM)
    return StorageError(f"the download journal {path}: {'the disk is full' if full else error}")


def lacks_room(error: Exception) -> bool:
    """Whether it may be that nothing can be written, and reading is still possible."""
    return _code(error) in (_FULL, _IO_ERROR)


def _code(error: Exception) -> int:
    """SQLite's primary code for what went wrong."""
    if isinstance(error, OSError):
        return _FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else 0
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
