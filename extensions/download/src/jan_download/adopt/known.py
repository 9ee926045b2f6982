"""What files of other programs were found to hash to, so that a large one is read once and not at each download.

A file is known again by its path, size, time of change and inode. Kept as a small JSON file: losing it costs only time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from .reading import small_text

__all__ = ["KnownHashes"]

_MOST = 1000


class KnownHashes:
    """The hashes, kept in `path`; newest last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._known = msgspec.json.decode(small_text(path), type=dict[str, tuple[int, int, int, str]])
        except msgspec.MsgspecError:
            self._known = {}

    def of(self, path: Path) -> str:
        """The SHA-256 that this file had when it was last read; "" when it was never, or has changed since."""
        size, changed, inode, sha256 = self._known.get(str(path), (0, 0, 0, ""))
        try:
            status = path.stat()
        except OSError:
            return ""
        return sha256 if (size, changed, inode) == (status.st_size, status.st_mtime_ns, status.st_ino) else ""

    def note(self, path: Path, status: os.stat_result, sha256: str) -> None:
        """Remember the hash that a file had when `status` was its state."""
        self._known.pop(str(path), None)
        self._known[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ino, sha256)
        for oldest in list(self._known)[:-_MOST]:
            del self._known[oldest]
        fresh = self._path.with_suffix(f".{secrets.token_hex(4)}.new")
        with contextlib.suppress(OSError):
            try:
                fresh.parent.mkdir(parents=True, exist_ok=True)
                fresh.write_bytes(msgspec.json.encode(self._known))
                fresh.replace(self._path)
            finally:
                fresh.unlink(missing_ok=True)
