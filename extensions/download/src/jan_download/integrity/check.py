"""Reads a file once and says what it hashes to, and which of its pieces are wrong. It changes nothing."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from ..records import PIECE
from .piece_lists import PieceHashes

__all__ = ["Checked", "check"]

_BLOCK = 1 << 20
_STEP = 64 << 20


@dataclass(frozen=True, slots=True)
class Checked:
    """`actual`: the SHA-256 of all there is, "" when parts of it cannot be read. `size`: its bytes. `bad`: the pieces
    that are wrong, cut off or cannot be read, counted from 0; empty where nobody knows their hashes. `pieces`: what the
    pieces hash to now."""

    actual: str
    size: int
    bad: tuple[int, ...]
    pieces: PieceHashes


def check(
    path: Path,
    size: int,
    hashes: PieceHashes | None,
    stopped: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Checked | None:
    """Read a file that should have `size` bytes, once; blocks. None when `stopped` answered true first.

    `progress` gets (bytes done, bytes in all), every 64 MiB. What the disk cannot read (EIO) is as bad as what is
    wrong. Raises other OSErrors.
    """
    length = hashes.length if hashes else PIECE
    found: list[bytes] = []
    bad: list[int] = []
    with path.open("rb", buffering=0) as file:
        reader = _Reader(file, stopped, progress)
        for first in range(0, size, length):
            digest = hashlib.sha256()
            whole = reader.read(first, min(first + length, size), digest)
            if hashes and not (whole and digest.digest() == hashes.of(len(found))):
                bad.append(len(found))
            found.append(digest.digest())
        reader.read(size, reader.size)
        if stopped():
            return None
        actual = "" if reader.unreadable else reader.whole.hexdigest()
        return Checked(actual, reader.size, tuple(bad), PieceHashes(length, b"".join(found)))


class _Reader:
    """One pass over a file, in blocks; `whole` is the hash of all of it."""

    def __init__(self, file: FileIO, stopped: Callable[[], bool], progress: Callable[[int, int], None]) -> None:
        self.whole, self.unreadable, self.at = hashlib.sha256(), False, 0
        self.size = file.seek(0, 2)
        self._file, self._stopped, self._progress = file, stopped, progress
        self._block = memoryview(bytearray(_BLOCK))

    def read(self, first: int, end: int, digest: hashlib._Hash | None = None) -> bool:
        """Read and hash the bytes from `first` up to `end`; False when they are not all there or cannot be read."""
        self._file.seek(first)
        self.at = first
        while self.at < end:
            if self._stopped():
                return False
            try:
                count = self._file.readinto(self._block[: min(_BLOCK, end - self.at)])
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                self.unreadable = True
                return False
            if not count:
                return False
            self.whole.update(self._block[:count])
            if digest is not None:
                digest.update(self._block[:count])
            if (self.at + count) // _STEP > self.at // _STEP:
                self._progress(self.at + count, self.size)
            self.at += count
        return True
