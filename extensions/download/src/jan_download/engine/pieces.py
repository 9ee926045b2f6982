"""The pieces of one file: how much of each is there, and what is known of it.

Plain bookkeeping: no I/O, no clock, no lock (whoever shares it between threads guards it). Who fetches which piece is
`plan`'s business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..records import PIECE, Piece, PieceState

__all__ = ["LETTERS", "PieceMap", "decode", "encode"]

LETTERS = "vwapxm"
"""Verified, whole, under way, begun, was wrong, missing: as `shapes.Download.pieces` explains them."""

_MOST = 1 << 22
"""Pieces that `decode` makes room for, at most: 32 TiB of 8 MiB pieces."""
_MAP = re.compile(rf"(?:[1-9][0-9]{{0,7}}[{LETTERS}])*")
_RUN = re.compile(rf"([0-9]+)([{LETTERS}])")
_SAME = re.compile(r"(.)\1*")


def encode(letters: Iterable[str]) -> str:
    """A piece map from one letter for each piece: runs of a count and a letter, such as `12v3a400m`."""
    return "".join(f"{run.end() - run.start()}{run[1]}" for run in _SAME.finditer("".join(letters)))


def decode(text: str) -> str:
    """One letter for each piece of a piece map. Raises ValueError for what `encode` never makes."""
    if not _MAP.fullmatch(text):
        raise ValueError("this is not a piece map")
    runs = [(int(count), letter) for count, letter in _RUN.findall(text)]
    if sum(count for count, _ in runs) > _MOST:
        raise ValueError("the piece map names more pieces than any file has")
    return "".join(letter * count for count, letter in runs)


class PieceMap:
    """The pieces of a file of `size` bytes, each of `length` bytes but the last.

    A piece is filled from its beginning on. `done`: bytes that are in the file, durable or not; `verified`: those in
    pieces whose own hash matched. `pieces`: what the journal knew; what cannot be true of this file is left out.
    """

    def __init__(self, size: int, pieces: Iterable[Piece] = (), length: int = PIECE) -> None:
        if size < 0 or length <= 0:
            raise ValueError("a size is 0 or more, a piece's length more than 0")
        self.size, self.length = size, length
        self.count = -(-size // length)
        self.done = self.verified = 0
        self._have = [0] * self.count
        self._states: list[PieceState] = ["begun"] * self.count
        self._letters = bytearray(b"m") * self.count
        self._sources: dict[int, str] = {}
        self._tries: dict[int, int] = {}
        self._changed: set[int] = set()
        self._front = 0
        for piece in pieces:
            self._restore(piece)

    def span(self, index: int) -> tuple[int, int]:
        """Where a piece begins, and where the next one does."""
        return index * self.length, min((index + 1) * self.length, self.size)

    def have(self, index: int) -> int:
        """Bytes of a piece that are there, from its beginning on."""
        return self._have[index]

    def source(self, index: int) -> str:
        """The host that brought what there is of a piece; several are joined by a space."""
        return self._sources.get(index, "")

    def tries(self, index: int) -> int:
        """How often a piece was begun anew because it was wrong."""
        return self._tries.get(index, 0)

    def finished(self, index: int) -> bool:
        """Whether nothing remains to be done for a piece."""
        return self._states[index] != "begun"

    def checked(self, index: int) -> bool:
        """Whether a piece's own hash matched."""
        return self._states[index] == "verified"

    @property
    def complete(self) -> bool:
        """Whether every piece is finished."""
        return self.front == self.count

    @property
    def front(self) -> int:
        """The first piece that is not finished; `count` when all are."""
        while self._front < self.count and self.finished(self._front):
            self._front += 1
        return self._front

    @property
    def ready(self) -> int:
        """How many bytes from the beginning of the file on are finished and will not change."""
        return min(self.front * self.length, self.size)

    def add(self, index: int, count: int, source: str) -> None:
        """Note that `count` more bytes of a piece are in the file."""
        first, end = self.span(index)
        if self.finished(index) or not 0 <= count <= end - first - self._have[index]:
            raise ValueError(f"piece {index} does not lack {count} bytes")
        self._have[index] += count
        self.done += count
        known = self._sources.get(index, "")
        if source not in known.split():
            self._sources[index] = f"{known} {source}".lstrip()
        self._note(index)

    def finish(self, index: int, *, checked: bool) -> None:
        """Note that all bytes of a piece are there; `checked`: and its own hash matches."""
        first, end = self.span(index)
        if self._have[index] != end - first:
            raise ValueError(f"piece {index} is not whole")
        if checked and not self.checked(index):
            self.verified += end - first
        self._states[index] = "verified" if checked else "whole"
        self._note(index)

    def drop(self, index: int, *, wrong: bool = False) -> int:
        """Forget what there is of a piece, and say how many bytes that were. `wrong`: because its hash differs."""
        lost, self._have[index] = self._have[index], 0
        if self.checked(index):
            self.verified -= lost
        self.done -= lost
        self._states[index] = "begun"
        self._sources.pop(index, None)
        if wrong:
            self._tries[index] = self.tries(index) + 1
        self._front = min(self._front, index)
        self._note(index)
        return lost

    def doubt(self) -> None:
        """Take every piece that has no hash of its own checked as merely begun, so that it will be checked."""
        for index, state in enumerate(self._states):
            if state == "whole":
                self._states[index] = "begun"
                self._note(index)
        self._front = 0

    def changes(self, at: float = 0.0) -> list[Piece]:
        """The pieces that changed since this was last asked, for the journal; `at`: the time now."""
        changed, self._changed = sorted(self._changed), set()
        return [self.piece(index, at) for index in changed]

    def piece(self, index: int, at: float = 0.0) -> Piece:
        """One piece as the journal keeps it."""
        return Piece(
            index=index,
            length=self._have[index],
            state=self._states[index],
            source=self.source(index),
            tries=self.tries(index),
            at=at,
        )

    def letters(self, active: Iterable[int] = ()) -> str:
        """One letter for each piece; `active`: the pieces that are under way now. Quick, however many there are."""
        letters = self._letters.copy()
        for index in active:
            if not self.finished(index):
                letters[index] = ord("a")
        return letters.decode()

    def map(self, active: Iterable[int] = ()) -> str:
        """The piece map; `active` as for `letters`."""
        return encode(self.letters(active))

    def _note(self, index: int) -> None:
        """A piece is not what it was."""
        state = self._states[index]
        begun = "p" if self._have[index] else "x" if self.tries(index) else "m"
        self._letters[index] = ord(begun if state == "begun" else state[0])
        self._changed.add(index)

    def _restore(self, piece: Piece) -> None:
        if not 0 <= piece.index < self.count or self._have[piece.index] or not 0 <= piece.length <= self.length:
            return
        first, end = self.span(piece.index)
        if piece.length > end - first or (piece.state != "begun" and piece.length != end - first):
            return
        self._have[piece.index] = piece.length
        self._states[piece.index] = piece.state
        self.done += piece.length
        self.verified += piece.length if piece.state == "verified" else 0
        if piece.source and piece.length:
            self._sources[piece.index] = piece.source
        if piece.tries > 0:
            self._tries[piece.index] = piece.tries
        self._note(piece.index)
        self._changed.discard(piece.index)
