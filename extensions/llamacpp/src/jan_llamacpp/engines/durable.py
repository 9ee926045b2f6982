"""Files that are there whole or not at all, also after the power went. Knows nothing of engines."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["replace", "sync_directory"]


def replace(path: Path, data: bytes) -> None:
    """Write `data` and give it the name `path` in one rename, both forced to the disk. One writer at a time."""
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Force a directory's entries to the disk, where the system can (Windows cannot)."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
