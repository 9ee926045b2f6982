"""One thread that fetches: a claim, its request, its bytes into the file, and the next claim.

It decides nothing: what to fetch, from where, and what a failure means is `fetching`'s business.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

from ..network.errors import Unreachable
from .plan import Claim

if TYPE_CHECKING:
    from ..network.body import Body
    from .fetching import Fetching

__all__ = ["Connection"]

_BUFFER = 1 << 20


class Connection(threading.Thread):
    """Works for a `Fetching` until that has nothing more for it."""

    def __init__(self, work: Fetching) -> None:
        super().__init__(name="download connection", daemon=True)
        self._work = work

    def run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        try:
            while (claim := self._work.next_claim(self)) is not None:
                error: Exception | None = None
                try:
                    self._fetch(claim, buffer)
                except Exception as failure:  # judged by `ended`
                    error = failure
                self._work.ended(claim, error)
        except Exception as defect:  # a mistake in the engine must not leave the run waiting
            self._work.fail(defect)

    def _fetch(self, claim: Claim, buffer: memoryview) -> None:
        """Bring the pieces of a claim, one after the other, from one response."""
        work, pieces = self._work, self._work.pieces
        body: Body | None = None
        at = 0
        index: int | None = claim.index
        while index is not None:
            begin, end = pieces.span(index)
            start = begin + pieces.have(index)
            digest = self._prefix(begin, start, buffer) if work.hashes is not None else None
            if start < end:
                if body is None:
                    body = work.open(claim, start)
                    at = body.first
                at = self._skip(body, at, start, buffer)
                at = self._fill(claim, body, at, end, digest, buffer)
                if at < end:
                    return
            index = work.finished(claim, None if digest is None else digest.digest())

    def _prefix(self, begin: int, end: int, buffer: memoryview) -> hashlib._Hash:
        """The running SHA-256 of a piece as far as it is in the file."""
        digest = hashlib.sha256()
        while begin < end:
            count = self._work.partial.readinto(buffer[: min(len(buffer), end - begin)], begin)
            if not count:
                raise OSError("the partial file is shorter than what was written to it")
            digest.update(buffer[:count])
            begin += count
        return digest

    def _skip(self, body: Body, at: int, start: int, buffer: memoryview) -> int:
        """Read past what is there already: a source without ranges sends it all the same."""
        while at < start:
            at += _some(body, buffer[: min(len(buffer), start - at)])
        return at

    def _fill(
        self, claim: Claim, body: Body, at: int, end: int, digest: hashlib._Hash | None, buffer: memoryview
    ) -> int:
        """Bring the rest of a piece; returns how far it came: not to the end when the claim was taken away."""
        work, limits = self._work, self._work.limits
        while at < end:
            most = min(limits.grain(len(buffer)), end - at)
            data = buffer[: _some(body, buffer[:most])]
            claim.paused = True
            limits.spend(len(data), work.halted)
            claim.paused = False
            if not work.may_write(claim):
                return at
            if digest is not None:
                digest.update(data)  # first: it is in the processor's cache still
            work.partial.write(data, at)
            work.wrote(claim, len(data))
            at += len(data)
            work.wait_for_hash(claim)
        return at


def _some(body: Body, buffer: memoryview) -> int:
    """What has arrived: written at once, since nobody knows when the next byte comes."""
    count = body.readinto(buffer)
    if not count:
        raise Unreachable(f"{body.host}: it sends less than it said")
    return count
