"""Which source deserves the next connection: a book about those of one job. It opens nothing and knows no files.

Not thread-safe: whoever owns it guards it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from jan_core import JanError
from jan_core.types import DownloadSource

from .network.errors import Unreachable
from .source import LOOK_AGAIN, MEASURED, Source, host_and_port
from .status import SourceFigures, SourceState

__all__ = ["SourceBook"]

_SOMETHING = 1 << 14
"""Bytes after which a connection that breaks was of some use: a line that is cut again and again brings its file."""
_WORTH_IT = 0.5
"""A source that brought less than this share of the best in earlier jobs is not tried just to see."""
_ALIKE = 0.8
"""Sources within this share of the best are alike, and `priority` decides."""
_CROWDED = (429, 503)
"""How servers refuse one connection more."""
_PROBES = 2
"""Sources that are measured at the same time when there are others to fetch from."""


class SourceBook:
    """The sources of one job. `speeds`: bytes/s by host, from earlier jobs, to begin with the likely ones."""

    def __init__(
        self,
        sources: Sequence[DownloadSource],
        speeds: Mapping[str, float],
        clock: Callable[[], float] = time.monotonic,
        *,
        retry_first: float = 1.0,
        retry_longest: float = 60.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._speeds, self._clock, self._chance = dict(speeds), clock, chance
        self._retry_first, self._retry_longest = retry_first, retry_longest
        self._all: list[Source] = []
        self.add(sources)

    def add(self, sources: Iterable[DownloadSource]) -> int:
        """Further sources; those whose address is known already are passed over. Returns how many are new."""
        known, before = {each.source.url for each in self._all}, len(self._all)
        for source in sources:
            if source.url in known:
                continue
            known.add(source.url)
            host = host_and_port(source.url)
            twins = sum(each.host == host for each in self._all)
            self._all.append(
                Source(
                    source,
                    f"{host}#{twins + 1}" if twins else host,
                    host,
                    max(0.0, self._speeds.get(host, 0.0)),
                    _at=self._clock(),
                )
            )
        return len(self._all) - before

    # -- choosing ----------------------------------------

    def pick(self, avoid: Collection[str] = ()) -> Source | None:
        """The source that best deserves one more connection now, None when no source can have one.

        `avoid`: ids of those that are not to be used. One connection goes to each source that was never measured, the
        likely ones first; after that decides what one connection more may bring, so that a source whose line is full
        makes room for the next.
        """
        now = self._clock()
        able = [each for each in self._all if self._able(each, now) and each.id not in avoid]
        if not able:
            return None
        best = max(each.promise() for each in able)
        new = [each for each in able if not each.measured and not each.connections]
        new = [each for each in new if not each.hint or each.hint >= best * _WORTH_IT]
        probes = sum(bool(each.connections) and not each.measured for each in self._all)
        if new and (probes < _PROBES or not any(each.measured for each in able)):
            return min(new, key=lambda each: (each.source.priority, -each.hint))
        again = [each for each in able if self._neglected(each, now)]
        if again:
            return again[0]
        if not best:
            return min(able, key=lambda each: (each.connections, each.source.priority))
        alike = [each for each in able if each.promise() >= best * _ALIKE]
        return min(alike, key=lambda each: (each.source.priority, -each.promise()))

    def wait(self) -> float | None:
        """Seconds until some source may be asked (again); 0 when one may now; None when none ever will."""
        left = [each for each in self._all if each.out is None]
        if not left:
            return None
        now = self._clock()
        return max(0.0, min(each.retry_at for each in left) - now)

    def _neglected(self, source: Source, now: float) -> bool:
        return source.measured and not source.connections and now - source.idle_since >= source.patience

    def _able(self, source: Source, now: float) -> bool:
        crowded = now < source.most_until and source.connections >= source.most
        return source.out is None and source.retry_at <= now and not crowded

    # -- what became of it ----------------------------------------

    def began(self, source: Source) -> None:
        """One more connection to it is being made."""
        now = self._clock()
        source.note(now)
        if self._neglected(source, now):
            source.patience *= 2
            source.forget()
        source.connections += 1

    def received(self, source: Source, count: int) -> None:
        """`count` bytes of it came."""
        source.note(self._clock(), count)
        if source.since_failure >= MEASURED:
            source.failures = 0

    def ended(self, source: Source) -> None:
        """One of its connections is over, well or not."""
        now = self._clock()
        source.note(now)
        source.connections = max(0, source.connections - 1)
        source.idle_since = now

    def failed(self, source: Source, error: Exception) -> None:
        """A request to it, or a connection, failed; told before `ended`.

        One that is final (a JanError: it has not got the file, wants credentials, ...) means that the source is gone.
        Otherwise it is asked again after a pause: with full jitter up to a bound that doubles from failure to failure,
        or what the server said if that is longer. A connection that broke after it had brought something is no reason
        to wait longer than the first time, or at all; and where others of the same source go on, one more than those is
        not tried for a while.
        """
        if isinstance(error, JanError):
            return self.gone(source, str(error))
        now = self._clock()
        source.errors += 1
        source.reason = str(error)
        source.since_failure = 0
        delay, brought, status = 0.0, 0, 0
        if isinstance(error, Unreachable):
            delay, brought, status = error.delay, error.brought, error.status
        if status in _CROWDED and source.connections > 1:
            source.most, source.most_until = source.connections - 1, now + LOOK_AGAIN
        pause = 0.0
        if brought >= _SOMETHING:
            source.failures = 0
        if (
            brought < MEASURED and source.retry_at <= now
        ):  # otherwise it is the same trouble, seen by another connection
            pause = self._chance() * min(self._retry_longest, self._retry_first * 2.0 ** min(source.failures, 30))
            source.failures += 1
        source.retry_at = max(source.retry_at, now + max(pause, delay))
        return None

    def quarantine(self, source: Source, reason: str) -> None:
        """It sent wrong bytes: it is not asked again in this job."""
        source.out, source.reason = "quarantined", reason

    def gone(self, source: Source, reason: str) -> None:
        """It refuses the file, or has another one: it is not asked again in this job."""
        if source.out is None:
            source.errors += 1
            source.out, source.reason = "gone", reason

    # -- figures ----------------------------------------

    def figures(self) -> list[SourceFigures]:
        """What people are shown; in the order in which the sources were named, ids never change."""
        now = self._clock()
        return [
            SourceFigures(
                id=each.id,
                state=self._state(each, now),
                bytes=each.bytes,
                speed=round(each.speed),
                connections=each.connections,
                errors=each.errors,
                reason=each.reason if self._state(each, now) not in ("active", "idle") else "",
            )
            for each in self._all
        ]

    def speeds(self) -> dict[str, float]:
        """Bytes/s by host, of those that were measured; for the next job."""
        found: dict[str, float] = {}
        for each in self._all:
            if each.measured and each.out != "quarantined" and each.speed > 0:
                found[each.host] = max(found.get(each.host, 0.0), each.speed)
        return found

    def _state(self, source: Source, now: float) -> SourceState:
        if source.out is not None:
            return source.out
        if source.connections:
            return "active"
        if source.retry_at > now:
            return "waiting"
        return "idle" if source.bytes or source.errors else "unused"
