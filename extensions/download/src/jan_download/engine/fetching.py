"""Fetches all pieces that are missing, with as many connections as bring something, and outlives what fails.

What it leaves behind is a `PieceMap`; it neither opens the file nor makes it durable, and knows no job.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from jan_core.types import DownloadSource

from ..errors import BadSource
from ..network.errors import Unreachable
from ..records import Job
from ..status import Status
from .connection import Connection
from .dispatch import Dispatch
from .pieces import PieceMap, encode
from .plan import Claim
from .stop import Stop
from .trust import Trust

if TYPE_CHECKING:
    from ..integrity.piece_lists import PieceHashes
    from ..limits import Limits
    from ..network.body import Body
    from ..network.network import Network
    from ..storage.partial import Partial

__all__ = ["Fetching"]

_TICK = 0.1
_TELL = 0.25
_FAREWELL = 0.2
"""Seconds that connections have at the end to write what they have read."""
_AHEAD = 256 << 20
_STEP = 0.005
_PATIENCE = 2.0
"""Seconds that a run waits for a source to recover which has brought something since it last failed."""


class Fetching:
    """One attempt at everything that is missing. `ready`: how many bytes from the beginning on will not change.

    `more_sources`: asked (it may block) when none is left. `tell` is called about four times a second and `grown` when
    `ready` grew; `hashed` says how far somebody has read who follows that. `look`: why what the file begins with cannot
    be right, "" when it can. None is called with the lock.
    """

    def __init__(
        self,
        pieces: PieceMap,
        hashes: PieceHashes | None,
        trust: Trust,
        *,
        network: Network,
        partial: Partial,
        limits: Limits,
        stop: Stop,
        most: int,
        more_sources: Callable[[], Sequence[DownloadSource]],
        tell: Callable[[], None],
        grown: Callable[[], None],
        hashed: Callable[[], int],
        look: Callable[[], str],
    ) -> None:
        self.pieces, self.hashes, self.partial, self.limits = pieces, hashes, partial, limits
        self.ready, self.received, self.discarded = pieces.ready, 0, 0
        self.lock = threading.Condition()
        self.dispatch = Dispatch(pieces, trust, most)
        self._trust, self._book, self._network, self._stop = trust, trust.book, network, stop
        self._plan = self.dispatch.plan
        self._more_sources, self._tell, self._grown, self._look = more_sources, tell, grown, look
        self._hashed, self._caught_up = hashed, False
        self._over = threading.Event()
        self._fatal: Exception | None = None
        self._connections: set[Connection] = set()
        self._idle = 0
        self._before = 0

    def run(self) -> None:
        """Return when every piece is there.

        Raises Stopped, Anew, Unreachable, or what a person must act upon (JanError); OSError for the disk.
        """
        told = 0.0
        try:
            with self._stop.calling(self._wake):
                while not self.pieces.complete:
                    self._stop.check()
                    with self.lock:
                        if self._fatal is not None:
                            raise self._fatal
                        stranded = self._steer()
                        if not stranded:
                            self.lock.wait(_TICK)
                    if stranded:
                        self._find_sources()
                    if time.monotonic() - told >= _TELL:
                        told = time.monotonic()
                        self._tell()
        finally:
            self._end()

    def fail(self, error: Exception) -> None:
        """End with an error that came from elsewhere."""
        with self.lock:
            self._fatal = self._fatal or error
            self.lock.notify_all()

    def status(self, job: Job) -> Status:
        """How it stands now; `job` as it was last journaled."""
        with self.lock:
            done, verified, connections = self.pieces.done, self.pieces.verified, len(self._plan.claims)
            sources, letters = tuple(self._book.figures()), self.pieces.letters(self._plan.active())
        return Status(job, done, verified, connections, sources, encode(letters))

    # -- for connections ----------------------------------------

    def next_claim(self, connection: Connection) -> Claim | None:
        """What to fetch now; waits for it. None: nothing, for good."""
        with self.lock:
            while not self._done and len(self._connections) <= self.dispatch.pace.target:
                claim = self.dispatch.next()
                if claim is not None:
                    self._book.began(claim.source)
                    return claim
                self._idle += 1
                self.lock.wait(_TELL)
                self._idle -= 1
            self._connections.discard(connection)
            return None

    def open(self, claim: Claim, first: int) -> Body:
        """The response to read a claim from, beginning at `first` (or, without ranges, at 0)."""
        body, source, last = claim.body, claim.source, self.pieces.span(claim.last)[1] - 1
        if body is None:
            if claim.sequential:
                first, last = 0, -1
            insist = self._trust.validator(source)
            body = self._network.open(source.source, first, last, validator=insist, size=self.pieces.size)
        with self.lock:
            claim.body = body
            if claim.void:
                body.interrupt()
                return body
            if not body.ranged:
                self._trust.rangeless.add(source.id)
                if not claim.sequential:
                    self._plan.make_sequential(claim)
            self._trust.recognize(source, body.validator, begun=self.pieces.done > 0)
            if self._trust.careful:
                self.dispatch.pace.limit(1)
            else:
                self._plan.shorten(claim)
        return body

    def may_write(self, claim: Claim) -> bool:
        """Whether bytes may be written under a claim now; if so, `wrote` must follow."""
        with self.lock:
            claim.writing = not claim.void
            return claim.writing

    def wrote(self, claim: Claim, count: int) -> None:
        """`count` bytes of a claim's piece are in the file."""
        with self.lock:
            claim.writing = False
            if claim.void:
                self._plan.release(claim)
                self.lock.notify_all()
                return
            self.pieces.add(claim.index, count, claim.source.id)
            self.received += count
            claim.hear(time.monotonic(), count)
            self._book.received(claim.source, count)
            if self.hashes is None and self.pieces.front:  # of the first piece, somebody must have had a look
                self.ready = self.pieces.front * self.pieces.length + self.pieces.have(self.pieces.front)
        if self.hashes is None:
            self._grown()

    def wait_for_hash(self, claim: Claim) -> None:
        """Let who hashes the file follow: what is too far behind would have to be read from the disk again. Not while
        the bytes of an earlier run are hashed."""
        behind = self.ready - self._hashed()
        self._caught_up = self._caught_up or behind <= _AHEAD // 2
        claim.paused = True
        while self._caught_up and self.ready - self._hashed() > _AHEAD:
            if self.halted(_STEP):
                break
        claim.paused, claim.heard = False, time.monotonic()

    def finished(self, claim: Claim, digest: bytes | None) -> int | None:
        """A piece is all there, and `digest` is its SHA-256 if that matters. Returns the claim's next piece, if any."""
        index, source = claim.index, claim.source
        problem = self._look() if index == 0 and digest is None else ""
        with self.lock:
            if claim.void:
                return None
            if problem:
                self.discarded += self.pieces.drop(index)
                raise BadSource(f"{source.host}: {problem}", host=source.host)
            if digest is None or self.hashes is None or digest == self.hashes.of(index):
                self.pieces.finish(index, checked=digest is not None)
            else:
                self.discarded += self.pieces.have(index)
                if self.dispatch.wrong(source, index):
                    return None
            following = self._plan.advance(claim)
            self.ready = max(self.ready, self.pieces.ready)
            if self.pieces.complete or not self.pieces.finished(index):
                self.lock.notify_all()
        self._grown()
        return following

    def ended(self, claim: Claim, error: Exception | None) -> None:
        """A claim is over. `error`: why, unless it was done or taken away."""
        if claim.body is not None:
            claim.body.close()
        with self.lock:
            claim.writing = False
            if error is not None and not claim.void and not self._over.is_set():
                try:
                    proven, begun = self.hashes is not None, self.pieces.done > 0
                    self._trust.judge(claim.source, error, proven=proven, begun=begun)
                except Exception as fatal:  # raised by `run`, in its thread
                    self._fatal = self._fatal or fatal
            self._plan.release(claim)
            self._book.ended(claim.source)
            self.lock.notify_all()

    def halted(self, seconds: float) -> bool:
        """Sleep; True when all this is over."""
        return self._over.wait(seconds)

    # -- the thread that runs it ----------------------------------------

    def _steer(self) -> bool:
        """See to it that there are as many connections as there should be. True: there is nobody left to ask."""
        target = self.dispatch.pace.note(time.monotonic(), self.received, self.dispatch.working)
        while len(self._connections) < target and not self._idle:
            connection = Connection(self)
            self._connections.add(connection)
            connection.start()
            if self._plan.free() is None:
                break
        self.dispatch.relieve()
        return self.dispatch.idle and self._book.wait() != 0

    def _find_sources(self) -> None:
        """No connection and nobody to ask: wait a moment, find others, or give up. Raises why."""
        pause = self._book.wait()
        if pause is not None:
            fruitful, self._before = self.received > self._before, self.received
            if pause and (not fruitful or pause > _PATIENCE):
                raise self._trust.reason(Unreachable("no source can be reached"))
            self._stop.wait(pause)
            self._wake()
            return
        found = self._more_sources()
        with self.lock:
            if not self._book.add(found):
                raise self._trust.reason(BadSource("nobody knows a place to get this file from"))

    def _wake(self) -> None:
        with self.lock:
            self.lock.notify_all()

    def _end(self) -> None:
        """Let the connections write what they have read, and return when none of them writes any more."""
        self._over.set()
        with self.lock:
            for body in self._bodies():
                body.interrupt()
            self.lock.wait_for(lambda: not self._bodies(), _FAREWELL)
            claims = list(self._plan.claims)
            for claim in claims:
                self.dispatch.revoke(claim)
            self.lock.notify_all()
            while any(claim.writing for claim in claims):
                self.lock.wait()

    @property
    def _done(self) -> bool:
        """Whether nobody is to begin anything more."""
        return self._fatal is not None or self._over.is_set()

    def _bodies(self) -> list[Body]:
        return [claim.body for claim in self._plan.claims if claim.body is not None]
