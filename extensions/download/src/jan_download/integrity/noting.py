"""Hashes the pieces of a file that goes by, as far as there is time for that.

Most files come without a list of piece hashes. Noting them while the file is fetched is what lets damage be narrowed
down later, see `piece_lists.note`. It is worth some idle time, and no speed: the thread that hashes the whole file
lends it a share of itself, and on a line so fast that it has none to spare pieces are passed over. A copy that is
taken in on this machine is read once, and all its pieces are noted (`busy` of nothing).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from ..records import PIECE
from .piece_lists import PieceHashes

__all__ = ["Noting"]

_SHARE = 0.25
_GRACE = 0.1
"""A piece is hashed when its thread has been busy for less than this share of the time so far, and these seconds."""
_UNKNOWN = bytes(32)
"""Stands for a piece that was passed over; no piece hashes to this, so it counts as damaged when that matters."""


class Noting:
    """Takes a file from its beginning on, in one thread. `busy`: seconds for which that thread has worked."""

    def __init__(
        self,
        length: int = PIECE,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._length, self._clock, self._busy = length, clock, busy
        self._hashes: list[bytes] = []
        self._digest: hashlib._Hash | None = None
        self._at = 0
        self._began: tuple[float, float] | None = None

    def update(self, data: memoryview) -> None:
        """The next bytes of the file."""
        while data:
            if not self._at:
                self._digest = hashlib.sha256() if self._spare() else None
            part, data = data[: self._length - self._at], data[self._length - self._at :]
            if self._digest is not None:
                self._digest.update(part)
            self._at += len(part)
            if self._at == self._length:
                self._finish()

    def hashes(self) -> PieceHashes | None:
        """What the pieces hash to, once the whole file went by; None when every one was passed over."""
        if self._at:
            self._finish()
        known = any(each != _UNKNOWN for each in self._hashes)
        return PieceHashes(self._length, b"".join(self._hashes)) if known else None

    def _finish(self) -> None:
        self._hashes.append(self._digest.digest() if self._digest is not None else _UNKNOWN)
        self._at = 0

    def _spare(self) -> bool:
        now = self._clock(), self._busy()
        if self._began is None:
            self._began = now
        elapsed, worked = now[0] - self._began[0], now[1] - self._began[1]
        return worked <= _SHARE * elapsed + _GRACE
