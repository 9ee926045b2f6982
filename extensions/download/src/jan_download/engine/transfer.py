"""One run of one job, in a thread of its own: from what is there to the file under its final name.

It joins the engine to the disk and the journal. Whether and when a job runs again is the queue's business.
"""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from jan_core import JanError
from jan_core.types import DownloadSource

from ..errors import DiskFull, HashMismatch
from ..integrity.gguf import HEAD, head_problem
from ..integrity.noting import Noting
from ..integrity.piece_lists import note
from ..network.errors import Unreachable
from ..outcome import NO_ERROR
from ..records import Job, Piece
from ..sources import SourceBook
from ..status import Status
from ..storage.watermark import Watermark
from .fetching import Fetching
from .ledger import Ledger
from .opening import first_answer
from .pieces import PieceMap
from .stop import Stop
from .stream import Stream
from .trust import Anew, Trust

if TYPE_CHECKING:
    from ..integrity.piece_lists import PieceHashes
    from ..journal import Journal
    from ..limits import Limits
    from ..network.body import Body
    from ..network.network import Network
    from ..settings import DownloadSettings
    from ..source import Source
    from ..storage.partial import Partial
    from ..storage.store import Store

__all__ = ["Transfer"]

_ATTEMPTS = 6
"""How often one run begins again with what it cannot prove; then it waits for its turn like any that fails."""


@dataclass
class Transfer:
    """Everything a run needs. `hashes`: of the pieces, where somebody knows them. `reserve`: bytes of the disk to leave
    alone. `report` is called from this run's threads about four times a second and at each step; `more_sources`, which
    may block, when all sources are gone or sent wrong bytes."""

    job: Job
    sources: Sequence[DownloadSource]
    hashes: PieceHashes | None
    journal: Journal
    store: Store
    network: Network
    limits: Limits
    options: DownloadSettings
    reserve: int
    report: Callable[[Status], None]
    more_sources: Callable[[], Sequence[DownloadSource]] = list
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.job, self.journal, self.store)

    def run(self) -> Job:
        """Bring the file. Returns the completed job.

        Raises Stopped, Superseded, Unreachable (try again later), a JanError of `errors` (a person must
        act), StorageError, or OSError for a disk that fails.
        """
        try:
            with self.stop.calling(self.network.close):
                return self._complete(self._there() or self._fetched())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    "the disk is full; what was fetched is kept", needed=0, free=self.store.free()
                ) from error
            raise
        except (JanError, Unreachable):
            self.stop.check()  # what is stopped fails in many ways
            raise
        finally:
            self.network.close()

    # -- to the blob ----------------------------------------

    def _there(self) -> str:
        """The hash of the file when it is in the store already: another job brought it, or this one could not say so
        after it had."""
        job = self._ledger.job
        for digest in (job.sha256, job.actual):
            blob = self.store.blob(digest) if digest else None
            if blob is not None and blob.is_file() and job.expected in (0, blob.stat().st_size):
                return digest
        return ""

    def _fetched(self) -> str:
        """Fetch what is missing and make it a blob; its hash. Begins again with what cannot be proven."""
        job, options = self._ledger.job, self.options
        book = SourceBook(
            self.sources,
            self.journal.host_speeds(),
            retry_first=options.retry_first,
            retry_longest=options.retry_longest,
        )
        trust = Trust(
            book,
            hashed=bool(job.sha256) or self.hashes is not None,
            sized=job.size > 0,
            version=job.validator,
            url=job.source if any(each.url == job.source for each in self.sources) else "",
        )
        if job.offset and trust.careful:
            self._ledger.drop(Anew("nothing says which version of the file the bytes belong to that were there"))
        for _ in range(_ATTEMPTS):
            try:
                return self._attempt(trust)
            except Anew as reason:
                self._ledger.drop(reason)
                trust.forget(reason)
            finally:
                self.journal.note_host_speeds(book.speeds())
        raise Unreachable("what was fetched had to be thrown away again and again")

    def _attempt(self, trust: Trust) -> str:
        if self._ledger.job.expected:
            return self._sized(self._ledger.job.expected, trust, None)
        source, body = self.stop.aside(
            lambda: first_answer(trust, self.network, self.more_sources, self.stop), lambda late: late[1].close()
        )
        try:
            if body.total < 0:
                return self._streamed(body)
            self._ledger.update(total=body.total)  # so that nobody has to ask again to know that there is no room
            return self._sized(body.total, trust, (source, body))
        finally:
            body.close()

    def _sized(self, size: int, trust: Trust, opened: tuple[Source, Body] | None) -> str:
        """Bring a file of which the size is known; its hash. `opened`: an answer that is there already."""
        self._ledger.room_for(size, self.reserve)
        noting = Noting() if self.hashes is None else None
        partial = self.store.open_partial(self._ledger.job.partial, size)
        try:
            pieces = self._ledger.pieces(size, partial.found, self.hashes.length if self.hashes else 0)
            if self.hashes is not None:
                pieces.doubt()
            resumed = pieces.done > 0
            digest = self._whole(pieces, trust, partial, opened, noting.update if noting else lambda data: None)
        finally:
            partial.close()
        if self._ledger.job.sha256 not in ("", digest):
            self._mismatch(pieces, trust, digest, resumed=resumed)
        self._publish(digest)
        if noting is not None and (found := noting.hashes()) is not None:
            note(digest, found, self.store)
        return digest

    def _whole(
        self,
        pieces: PieceMap,
        trust: Trust,
        partial: Partial,
        opened: tuple[Source, Body] | None,
        also: Callable[[memoryview], None],
    ) -> str:
        """Fetch all pieces that are missing; the hash of the whole. `also` gets all that is hashed."""
        head = memoryview(bytearray(HEAD))
        judged = not self._ledger.job.sha256 or pieces.count > 1  # a single piece is as soon judged by its hash

        def look() -> str:
            return head_problem(self._ledger.job.name, bytes(head[: partial.readinto(head, 0)])) if judged else ""

        fetching = Fetching(
            pieces,
            self.hashes,
            trust,
            network=self.network,
            partial=partial,
            limits=self.limits,
            stop=self.stop,
            most=self.options.max_connections,
            more_sources=lambda: self.stop.aside(self.more_sources),
            tell=lambda: self.report(fetching.status(self._ledger.job)),
            grown=lambda: watermark.wake(),
            hashed=lambda: watermark.progress(),
            look=look,
        )
        if opened is not None:
            fetching.dispatch.begin_with(*opened)
        discarded = self._ledger.job.discarded

        def collect() -> tuple[list[Piece], dict[str, Any]]:
            job = self._ledger.job
            with fetching.lock:
                changed, done = pieces.changes(time.time()), pieces.done
                fields = {
                    "offset": done,
                    "high": max(job.high, done),
                    "total": pieces.size,
                    "discarded": discarded + fetching.discarded,
                    "validator": trust.version,
                    "source": trust.url,
                    "attempts": 0 if fetching.received else job.attempts,
                }
            return changed, {name: value for name, value in fields.items() if getattr(job, name) != value}

        with Watermark(partial, pieces.size, lambda: fetching.ready, also) as watermark:
            with self._ledger.checkpoints(partial, self.reserve, collect, fetching.fail):
                fetching.run()
            self._ledger.update(state="verifying")
            self.report(fetching.status(self._ledger.job))
            return self.stop.unless_stopped(watermark.digest(self.stop.is_set))

    def _streamed(self, body: Body) -> str:
        """Bring a file of which nobody knows where it ends; its hash."""
        ledger = self._ledger
        partial = self.store.open_partial(ledger.job.partial)
        try:
            stream = Stream(body, partial, self.limits, self.stop)
            digest = stream.bring(ledger, self.reserve, lambda: self.report(Status(ledger.job, stream.written)))
        finally:
            partial.close()
        if ledger.job.sha256 not in ("", digest):
            raise self._thrown_away(stream.written, digest)
        return self._publish(digest)

    # -- the end ----------------------------------------

    def _publish(self, digest: str) -> str:
        self._ledger.update(actual=digest)  # by which a blob without a known hash is found again after a crash
        self.store.publish(self._ledger.job.partial, digest)
        return digest

    def _mismatch(self, pieces: PieceMap, trust: Trust, digest: str, *, resumed: bool) -> None:
        """The whole is not what was asked for. Raises Anew when it may become so, HashMismatch otherwise."""
        text = "the SHA-256 of the whole file differs"
        unproven = [index for index in range(pieces.count) if not pieces.checked(index)]
        brought = Counter(source for index in unproven for source in pieces.source(index).split())
        suspects = [source for source, _ in brought.most_common() if source in trust.usable()]
        if len(suspects) > 1:
            trust.first = suspects[0]  # who brought most may have brought all: it is the cheapest to find out
            raise Anew(text, keep=suspects[0])
        for suspect in suspects:
            if len(trust.usable()) > 1 or trust.book.add(self.stop.aside(self.more_sources)):
                trust.first = trust.first or suspect
                trust.banish(suspect, text)
                raise Anew(text)
        if resumed and unproven:
            raise Anew(f"{text}, and part of it was there before")
        raise self._thrown_away(pieces.size, digest)

    def _thrown_away(self, size: int, digest: str) -> HashMismatch:
        self._ledger.discard(size)
        return HashMismatch(
            "the file is not the one that was asked for: its SHA-256 differs; it was thrown away",
            expected=self._ledger.job.sha256,
            actual=digest,
        )

    def _complete(self, digest: str) -> Job:
        """The blob is there. A group gives its files their names together, when the last one is complete."""
        ledger, size = self._ledger, self.store.blob(digest).stat().st_size
        if not ledger.job.group:
            self.store.name(digest, ledger.job.destination)
        ledger.update(
            state="completed",
            actual=digest,
            verified=bool(ledger.job.sha256),
            offset=size,
            total=size,
            high=size,  # another version, of another size, may have been begun before
            completed_at=0.0 if ledger.job.group else time.time(),
            attempts=0,
            **NO_ERROR,
        )
        return ledger.job
