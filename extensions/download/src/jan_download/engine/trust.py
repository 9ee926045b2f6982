"""Which version of the file each source has, and what a failure of one means for what is there already.

It keeps the `SourceBook` of a run together with what only the engine knows of a source: that it has no ranges, that it
is far slower than the others, that it sent wrong bytes. Not thread-safe: the lock of `Fetching` guards it.
"""

from __future__ import annotations

import time

from jan_core import JanError

from ..errors import BadSource, HashMismatch
from ..network.errors import Changed, NoRanges, Unreachable
from ..records import Piece
from ..source import Source
from ..sources import SourceBook
from .pieces import PieceMap

__all__ = ["Anew", "Trust"]

_AVOID = 30.0
"""Seconds for which a source that was far slower than the others is asked only when there is no other."""
_LONG_ENOUGH = 10
_TIMES = 3
"""How often one piece may be wrong when there is nobody else to ask (a bit may flip on the way), and how often a source
may say that it has another version."""


class Anew(Exception):
    """What was fetched cannot be proven to belong together any more: what came from `source`, or all but what came from
    nobody but `keep` (both ids, "": none)."""

    def __init__(self, reason: str, source: str = "", keep: str = "") -> None:
        super().__init__(reason)
        self.source, self.keep = source, keep

    def concerns(self, piece: Piece) -> bool:
        """Whether a piece must be fetched again: one whose own hash was checked never must."""
        if piece.state == "verified" or (self.keep and piece.source == self.keep):
            return False
        return not self.source or self.source in piece.source.split()


class Trust:
    """`hashed`: the SHA-256 of the whole file, or of its pieces, will tell whether the bytes are right. Without one,
    all sources must name the same strong validator, and without that there is one request and no resuming. `sized`: the
    size was asked for, and a source that has another one has another file.

    `version`: that of the bytes that are there as the source at `url` names it, "" unknown; `versions`: what each
    source (by id) says of its own. `sources`: those that answered. `first`: use only one at a time, this one as long as
    it may be asked, to find out who lies.
    """

    def __init__(self, book: SourceBook, *, hashed: bool, sized: bool, version: str = "", url: str = "") -> None:
        self.book, self.hashed, self.sized, self.version, self.url = book, hashed, sized, version, url
        self.first = ""
        self.sources: dict[str, Source] = {}
        self.versions: dict[str, str] = {}
        self.rangeless: set[str] = set()
        self.errors: dict[str, Unreachable | JanError] = {}
        self._avoided: dict[str, float] = {}
        self._changes: dict[str, int] = {}

    @property
    def careful(self) -> bool:
        """Whether nothing would tell that two requests gave parts of two versions: so there is one request only."""
        return not self.hashed and not self.version

    def validator(self, source: Source) -> str:
        """What a request to a source must insist on; "" when there is nothing."""
        if not self.hashed:
            return self.version
        return self.versions.get(source.id, self.version if source.source.url == self.url else "")

    def recognize(self, source: Source, version: str, *, begun: bool) -> None:
        """Note the version that a source has. `begun`: bytes are there already.

        Raises Changed or BadSource when nothing tells that they belong together.
        """
        self.sources[source.id], self.versions[source.id] = source, version
        if not self.version and (self.hashed or not begun):
            self.version, self.url = version, source.source.url
        elif not self.hashed and (version != self.version or not self._told_apart(source)):
            text = f"nothing says that {source.host} has the same version of the file"
            raise Changed(text) if len(self.usable()) == 1 else BadSource(text, host=source.host)

    def forget(self, reason: Anew) -> None:
        """What this concerns is gone: if that is all, whatever version comes next is as good."""
        if not reason.source and not reason.keep:
            self.version = self.url = ""

    def usable(self) -> list[str]:
        """Ids of the sources that may still be asked, now or later."""
        return [each.id for each in self.book.figures() if each.state not in ("gone", "quarantined")]

    def untried(self) -> bool:
        """Whether there is a source that was never asked for anything."""
        return any(each.state == "unused" for each in self.book.figures())

    def pick(self, busy: set[str]) -> Source | None:
        """The source for one more request; `busy`: ids of those that are being read."""
        if self.first:
            return self._one(busy)
        now = time.monotonic()
        once = self.rangeless & busy
        slow = {each for each, until in self._avoided.items() if until > now}
        source = self.book.pick(once | slow)
        return self.book.pick(once) if source is None and not busy - slow else source

    def avoid(self, source: Source) -> None:
        """Others are far faster: leave it alone for a while."""
        self._avoided[source.id] = time.monotonic() + _AVOID

    def silent(self, source: Source) -> None:
        """One of its connections was given up, since it brought nothing."""
        self.book.failed(source, Unreachable(f"{source.host}: it stopped sending"))

    def judge(self, source: Source, error: Exception, *, proven: bool, begun: bool) -> None:
        """Note a failure. `proven`: pieces have hashes of their own; `begun`: bytes are there already.

        Raises what ends the run: Anew, or the error itself when it has nothing to do with the source.
        """
        if isinstance(error, NoRanges):
            self.rangeless.add(source.id)
        elif isinstance(error, Changed):
            self._other_version(source, error, proven)
        elif isinstance(error, Unreachable):
            self.errors[source.id] = error
            self.book.failed(source, error)
        elif isinstance(error, JanError):
            self.errors[source.id] = error
            self.book.gone(source, error.message)
        else:
            raise error
        if self.careful and begun:
            raise Anew(f"{source.host} gave up in the middle and says nothing of the version it has")

    def wrong(self, source: Source, pieces: PieceMap, index: int) -> bool:
        """The hash of a piece differs, and its bytes are discarded: who brought all of it is not asked again if there
        is anybody else (then this is True). Raises HashMismatch when there is nobody and it was wrong too often."""
        text = f"{source.host} sends wrong bytes: the SHA-256 of piece {index} differs"
        if pieces.source(index) == source.id and self.usable() != [source.id]:
            self.errors[source.id] = BadSource(text, host=source.host)
            self.book.quarantine(source, text)
            return True
        if pieces.tries(index) + 1 >= _TIMES:
            raise HashMismatch(f"{text}, and did so {_TIMES} times; the pieces that are right are kept")
        return False

    def banish(self, source: str, text: str) -> None:
        """The whole file differs, and only this source (an id) brought what is not proven."""
        found = self.sources[source]
        self.errors[source] = HashMismatch(f"{found.host} has another file: {text}")
        self.book.quarantine(found, text)

    def reason(self, otherwise: Unreachable | JanError) -> Exception:
        """Why nothing can be had: for now, when `otherwise` is Unreachable, or for good."""
        if not isinstance(otherwise, Unreachable):
            return next((error for error in self.errors.values() if isinstance(error, JanError)), otherwise)
        usable = self.usable()
        later = [error for each, error in self.errors.items() if each in usable and isinstance(error, Unreachable)]
        return min(later, key=lambda error: (error.offline, error.delay), default=otherwise)

    def _told_apart(self, source: Source) -> bool:
        """Whether the same validator means the same file here too. It says nothing beyond one address (RFC 9110 section
        8.8.1): a hash or a number that is long enough is no coincidence, a "1" of two servers may be one."""
        return source.source.url == self.url or len(self.version.strip('"')) >= _LONG_ENOUGH

    def _one(self, busy: set[str]) -> Source | None:
        """The source that is in use, or `first`, or the fastest that can be asked now."""

        def rank(each: str) -> tuple[bool, float]:
            return each != self.first, -self.sources[each].goodput if each in self.sources else 0.0

        usable = sorted(self.usable(), key=rank)
        for each in usable:
            others = {other for other in usable if other != each}
            source = None if busy & (others | self.rangeless) else self.book.pick(others)
            if source is not None:
                return source
        return None

    def _other_version(self, source: Source, error: Changed, proven: bool) -> None:
        times = self._changes[source.id] = self._changes.get(source.id, 0) + 1
        self.versions.pop(source.id, None)
        own = self.url in (source.source.url, "")
        if own:
            self.version = self.url = ""
        if (
            (not self.hashed and not own)
            or (self.sized and "actual" in error.data)
            or (self.hashed and times >= _TIMES)
        ):
            self.errors[source.id] = BadSource(error.message, host=source.host)
            self.book.gone(source, error.message)
        elif not proven:
            raise Anew(error.message, source.id if self.hashed else "")
