"""Who fetches which pieces: claims on runs of them, in the order of the file, and how an idle connection takes over
from a slow one.

A piece belongs to one claim at most, so no byte of the file is ever written by two connections at once, and a wrong
byte is known to be somebody's. No I/O, no lock, no choice of sources.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import TYPE_CHECKING

from .pieces import PieceMap

if TYPE_CHECKING:
    from ..network.body import Body
    from ..source import Source

__all__ = ["REQUEST", "Claim", "Plan"]

REQUEST = 64 << 20
"""Bytes that one request asks for, at most."""
_SPAN_SECONDS = 4.0
"""A request asks for no more than its source brings in about this time."""
_SLOW_SECONDS = 5.0
_SLOW_SHARE = 0.1
_WORTH = 1.0
"""Seconds that a claim must still take to be shared."""
_SILENT = 2.0
"""Seconds without a byte after which an idle connection takes the piece over."""
_TEDIOUS = 8.0
"""Seconds that the last pieces may take before a source is tried that never was."""
_BEHIND = 256 << 20
"""How far the first unfinished piece may stay behind, in bytes, before a faster connection takes it over."""
_REMEMBERED = 30


class Claim:
    """The pieces `first` to `last` (inclusive), fetched from `source` in one request; `index` is the one under way.

    `last` may be moved back while the claim is worked on. `void`: it was taken away or given back, and not a byte more
    may be written under it. `body`: what is read now. `paused`: it waits for a bandwidth limit, and so may not be
    judged. `sequential`: the source knows no ranges; such a claim has one piece at a time, at whatever is missing next.
    """

    def __init__(self, source: Source, first: int, last: int, now: float, *, sequential: bool = False) -> None:
        self.source, self.index, self.last, self.sequential = source, first, last, sequential
        self.body: Body | None = None
        self.void = self.paused = self.writing = False
        self.got = 0
        self.began = self.heard = now
        self._marks: deque[tuple[float, int]] = deque([(now, 0)])

    def hear(self, now: float, count: int) -> None:
        """Note that `count` bytes came."""
        self.got += count
        self.heard = now
        if now - self._marks[-1][0] >= 0.25:
            self._marks.append((now, self.got))

    def silent(self, now: float) -> bool:
        """Whether no byte has come for so long that an idle connection may take over."""
        return now - self.heard >= _SILENT and not self.paused

    def speed(self, now: float) -> float:
        """Bytes/s over the last 5 s, or since it began."""
        while len(self._marks) > 1 and now - self._marks[1][0] >= _SLOW_SECONDS:
            self._marks.popleft()
        then, before = self._marks[0]
        return (self.got - before) / (now - then) if now > then else 0.0


class Plan:
    """The claims on the pieces of one file. `clock` is in seconds, monotonic."""

    def __init__(self, pieces: PieceMap, clock: Callable[[], float]) -> None:
        self.pieces = pieces
        self.claims: set[Claim] = set()
        self._clock = clock
        self._owners: dict[int, Claim] = {}
        self._speeds: deque[tuple[str, float]] = deque(maxlen=_REMEMBERED)

    def free(self, start: int = 0) -> int | None:
        """The first piece from `start` on that is unfinished and nobody's."""
        for index in range(max(start, self.pieces.front), self.pieces.count):
            if not self.pieces.finished(index) and index not in self._owners:
                return index
        return None

    def claim(self, source: Source, connections: int, *, whole: bool = False, only: bool = True) -> Claim | None:
        """The next pieces that nobody has, for a request to `source`; None when somebody has each.

        `connections` share the work: near the end of the file each takes less. `only`: there is no other source, so
        there is nothing to lose with one that was never measured. `whole`: all there is, in one request.
        """
        first = self.free()
        if first is None:
            return None
        most = max(1, REQUEST // self.pieces.length)
        left = self.pieces.count - first
        share = -(-left // (2 * connections)) if connections > 1 else left
        if source.measured:
            most = min(most, max(1, int(source.goodput * _SPAN_SECONDS) // self.pieces.length))
        elif not only:
            most = 1
        most = left if whole else min(most, share)
        last = first
        while last + 1 < first + most and self._follows(last + 1):
            last += 1
        return self._take(Claim(source, first, last, self._clock()))

    def sequential(self, source: Source) -> Claim | None:
        """A claim on what is missing next, for a source that sends the whole file from its beginning on."""
        first = self.free()
        return None if first is None else self._take(Claim(source, first, first, self._clock(), sequential=True))

    def advance(self, claim: Claim) -> int | None:
        """The piece after the one that was finished, None when the claim has no other."""
        if claim.void:
            return None
        del self._owners[claim.index]
        if claim.sequential:
            following = self.free(claim.index + 1)
            if following is None:
                return None
            claim.index = claim.last = following
            self._owners[following] = claim
        elif claim.index >= claim.last:
            return None
        else:
            claim.index += 1
        return claim.index

    def release(self, claim: Claim) -> None:
        """Give back what a claim still has: its connection may write nothing more under it. The piece of which some
        bytes are being written at this moment is nobody else's until this is called again after that."""
        kept = claim.index if claim.writing else -1
        for index in range(claim.index, claim.last + 1):
            if index != kept and self._owners.get(index) is claim:
                del self._owners[index]
        if claim in self.claims and claim.got:
            self._speeds.append((claim.source.id, claim.speed(self._clock())))
        claim.void = True
        self.claims.discard(claim)

    def shorten(self, claim: Claim) -> None:
        """Let a claim go no further than one request usually does."""
        self._trim(claim, claim.index + max(1, REQUEST // self.pieces.length) - 1)

    def make_sequential(self, claim: Claim) -> None:
        """The source sends the whole file: the claim has one piece at a time from now on."""
        self._trim(claim, claim.index)
        claim.sequential = True

    def active(self) -> set[int]:
        """The pieces that are being fetched at this moment."""
        return {claim.index for claim in self.claims}

    # -- taking over ----------------------------------------

    def split(self) -> bool:
        """Make room for an idle connection: give back the second half of the largest claim. False when none has two
        pieces to share."""
        now = self._clock()
        shareable = [claim for claim in self.claims if self._shareable(claim, now)]
        largest = max(shareable, key=lambda claim: claim.last - claim.index, default=None)
        if largest is None:
            return False
        self._trim(largest, largest.index + (largest.last - largest.index) // 2)
        return True

    def contested(self) -> bool:
        """Whether one more connection could be of use though every piece is somebody's."""
        now = self._clock()
        return any(claim.silent(now) or now - claim.began >= _WORTH for claim in self.claims)

    def laggard(self, rival: Source) -> Claim | None:
        """A claim on a last piece that a connection to `rival` would bring much sooner: one that has been silent, or
        whose piece would take three times as long as it would there."""
        now = self._clock()
        for claim in sorted(self.claims, key=lambda claim: claim.heard):
            if claim.paused or claim.writing:
                continue
            if rival is claim.source:
                continue  # the connection's own timeout ends it
            if claim.silent(now):
                return claim
            speed = claim.speed(now)
            if not rival.measured or not claim.got or speed <= 0:
                continue
            left = self._left(claim)
            if left / speed > 3 * left / max(rival.goodput, 1.0) + 1.0:
                return claim
        return None

    def straggler(self) -> Claim | None:
        """The claim on the first unfinished piece when it keeps the rest of the file waiting: what is 256 MiB behind it
        is done already."""
        owner = self._owners.get(self.pieces.front)
        if owner is None or owner.paused or owner.writing or owner.sequential:
            return None
        behind = min(_BEHIND // self.pieces.length, self.pieces.count)
        beyond = owner.last + 1 + behind
        ahead = any(self.pieces.finished(index) for index in range(beyond, min(beyond + behind, self.pieces.count)))
        return owner if ahead else None

    def slow(self) -> Iterable[Claim]:
        """Claims that brought less than a tenth of the median of the others over the last 5 s."""
        now = self._clock()
        for claim in list(self.claims):
            if claim.paused or claim.writing or now - claim.began < _SLOW_SECONDS:
                continue
            others = [each.speed(now) for each in self.claims if each is not claim and each.got and not each.paused]
            others += [speed for source, speed in self._speeds if source != claim.source.id]
            if others and claim.speed(now) < _SLOW_SHARE * median(others):
                yield claim

    def tedious(self) -> Iterable[Claim]:
        """Claims that have had time to show what they bring, and will take long."""
        now = self._clock()
        for claim in list(self.claims):
            left = self._left(claim) + (claim.last - claim.index) * self.pieces.length
            judged = now - claim.began >= _SILENT and not claim.paused and not claim.writing
            if judged and left > claim.speed(now) * _TEDIOUS:
                yield claim

    def _trim(self, claim: Claim, last: int) -> None:
        for index in range(last + 1, claim.last + 1):
            del self._owners[index]
        claim.last = min(claim.last, last)

    def _left(self, claim: Claim) -> int:
        first, end = self.pieces.span(claim.index)
        return end - first - self.pieces.have(claim.index)

    def _shareable(self, claim: Claim, now: float) -> bool:
        """Whether half of a claim is worth a connection: what its own cannot read any more, it cannot use again."""
        if claim.sequential or claim.last == claim.index:
            return False
        left, speed = (claim.last - claim.index) * self.pieces.length, claim.speed(now)
        return left > speed * _WORTH if claim.got else now - claim.began > _WORTH

    def _follows(self, index: int) -> bool:
        """Whether a piece can be asked for in one request with the one before: it is missing, all of it."""
        pieces = self.pieces
        return (
            index < pieces.count
            and index not in self._owners
            and not pieces.finished(index)
            and not pieces.have(index)
            and not pieces.tries(index)
        )

    def _take(self, claim: Claim) -> Claim:
        for index in range(claim.index, claim.last + 1):
            self._owners[index] = claim
        self.claims.add(claim)
        return claim
