"""One job goes on with the partial file of another: what the journal knows of its bytes, in the heir's own pieces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from ..journal import Journal
from ..records import Job, Piece

__all__ = ["in_pieces_of", "inherit"]


def inherit(job: Job, heir: Job, journal: Journal) -> None:
    """What is known of the partial file of `job` is known of that of `heir` from now on: it is the same file.

    Where their pieces have other lengths, bytes that are at no piece's beginning any more are given up, and counted.
    """
    with journal.transaction():
        journal.inherit(job.id, heir.id)
        now = journal.get(heir.id)
        if now is None or job.piece_length == heir.piece_length:
            return
        pieces = in_pieces_of(heir.piece_length, job.piece_length, now.expected, journal.pieces(heir.id))
        held = sum(piece.length for piece in pieces)
        journal.forget_pieces(heir.id)
        journal.checkpoint(heir.id, now.run, pieces, offset=held, discarded=now.discarded + max(0, now.offset - held))


def in_pieces_of(new: int, old: int, size: int, pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces of `old` bytes as such of `new` bytes, of a file of `size` bytes. No hash of any of these is known yet."""
    found = []
    at = time.time()
    for begin, end, source in _stretches(old, pieces):
        for index in range(-(-begin // new), -(-end // new)):
            length = min(end, (index + 1) * new) - index * new
            whole = length == new or index * new + length == size
            found.append(Piece(index, length, "whole" if whole else "begun", source, at=at))
    return found


def _stretches(length: int, pieces: Iterable[Piece]) -> Iterator[tuple[int, int, str]]:
    """The bytes that are there, as (first, one after the last, who brought them); neighbours are one."""
    begin = end = 0
    sources: dict[str, None] = {}
    for piece in sorted((each for each in pieces if each.length), key=lambda each: each.index):
        first = piece.index * length
        if first != end or not end:
            if end > begin:
                yield begin, end, " ".join(sources)
            begin, sources = first, {}
        end = first + piece.length
        sources |= dict.fromkeys(piece.source.split())
    if end > begin:
        yield begin, end, " ".join(sources)
