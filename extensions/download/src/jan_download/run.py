"""One run of one job, in a thread of its own: take the file from this machine if it is here, else fetch it.

Everything here blocks. The bytes from the network are the engine's (`engine.transfer`); when a job runs, and what
becomes of it afterwards, are the queue's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from jan_core.types import AdoptedFile, DownloadSource

from .errors import BadSource, DiskFull, DownloadConflict
from .journal import Journal
from .limits import Limits
from .outcome import NO_ERROR
from .records import Job
from .settings import DownloadSettings
from .status import Status

if TYPE_CHECKING:
    from .engine.stop import Stop
    from .integrity.piece_lists import PieceHashes
    from .network.network import Network
    from .storage.store import Store

__all__ = ["Work"]


@dataclass
class Work:
    """What a run needs. `look`: whether to look for copies on this machine. `copies` and `sources` ask other
    extensions, and block; `missing`: bytes of the disk that must become free before the job may have its own.
    `report` is called from several threads."""

    job: Job
    journal: Journal
    store: Store
    settings: DownloadSettings
    limits: Limits
    reserve: int
    stop: Stop
    log: logging.Logger
    look: bool
    copies: Callable[[], Sequence[AdoptedFile]]
    sources: Callable[[], Sequence[DownloadSource]]
    missing: Callable[[Job], int]
    report: Callable[[Status], None]

    def run(self) -> Job:
        """Bring the file. Returns the completed job. Raises what `engine.transfer.Transfer.run` raises."""
        self.stop.check()
        if self._is_here() or self._stands_there() or self._is_taken():
            return self._complete()
        self.stop.check()
        if (missing := self.missing(self.job)) > 0:
            free = self.store.free()
            raise DiskFull("there is not enough room on the disk", needed=free + missing, free=free)
        return self._fetch()

    def _is_here(self) -> bool:
        """Whether the file is in the store already: another download brought it.

        Raises BadSource when it is, with another size than is asked for.
        """
        job = self.job
        blob = self.store.blob(job.sha256) if job.sha256 else None
        if blob is None or not blob.is_file():
            return False
        size = blob.stat().st_size
        others = [other for other in self.journal.holders(job.sha256) if other.state == "completed"]
        if job.size in (0, size):
            # Whoever repairs it later must know that it may be another program's file.
            self._update(origin=next((other.origin for other in others if other.origin), ""))
            return True
        if others:
            raise BadSource(
                f"the file of this SHA-256 that is here has {size} bytes, not {job.size}", expected=job.size
            )
        self.store.remove(job.sha256, [])
        return False

    def _is_taken(self) -> bool:
        """Whether another program's copy could be taken in."""
        job = self.job
        if not (self.look and job.sha256 and self.settings.adopt) or job.offset:
            return False
        for copy in self._copies():
            if self._takes(copy):
                return True
        if self.job.state != "running" or self.job.origin:
            self.stop.check()
            self._update(state="running", origin="")
        return False

    def _stands_there(self) -> bool:
        """Whether the file stands under its name already, where nobody looked after it. Raises DownloadConflict when
        it is another one."""
        final = self.store.final(self.job.destination)
        if not self.job.sha256 or not final.exists():
            return False
        if self._takes(AdoptedFile(str(final), "")):
            return True
        self.stop.check()
        raise DownloadConflict(f"there is another file {self.job.destination} already", destination=final.name)

    def _takes(self, copy: AdoptedFile) -> bool:
        from .adopt.taking import take
        from .integrity.noting import Noting
        from .integrity.piece_lists import note

        job, noting = self.job, Noting(busy=lambda: 0.0)  # it is read only once, and no line waits for it
        self.stop.check()
        self._update(state="verifying")
        self.report(Status(self.job))
        taken = take(
            copy,
            self.store,
            job.partial,
            job.sha256,
            job.size,
            self.stop.is_set,
            lambda done: self.report(Status(self.job, verified=done)),
            reserve=self.reserve,
            also=noting.update,
        )
        if not taken:
            return False
        self._update(origin=copy.origin)  # first: what is in the store must be known to be theirs
        self.store.adopt(job.partial, job.sha256)
        if (hashes := noting.hashes()) is not None:
            note(job.sha256, hashes, self.store)
        return True

    def _copies(self) -> Iterator[AdoptedFile]:
        from .adopt.finder import find

        return chain(self.copies(), find(self.job.sha256, self.job.size, self.settings, os.environ, self.store))

    def _fetch(self) -> Job:
        from .engine.transfer import Transfer
        from .network.network import Network

        sources = self.sources()
        if not sources:
            raise BadSource("nobody knows a place to get this file from: it has no URL")
        network = Network(self.settings)
        try:
            with self.stop.calling(network.close):
                return Transfer(
                    job=self.job,
                    sources=sources,
                    hashes=self._hashes(network),
                    journal=self.journal,
                    store=self.store,
                    network=network,
                    limits=self.limits,
                    options=self.settings,
                    reserve=self.reserve,
                    report=self.report,
                    more_sources=self.sources,
                    stop=self.stop,
                ).run()
        finally:
            network.close()

    def _hashes(self, network: Network) -> PieceHashes | None:
        """The hashes of the pieces; without them the file is checked as a whole."""
        from .integrity.piece_lists import load

        pieces = self.job.piece_list
        if pieces is None or not self.job.expected:
            return None
        try:
            return load(pieces, self.job.expected, network, self.store)
        except BadSource as error:
            self.stop.check()
            self.log.warning("download %s of %s: %s", self.job.id, self.job.name, error.message)
            return None

    def _complete(self) -> Job:
        """The blob is there. A job without a group gets its name; a group names all its files together."""
        job = self.job
        size = self.store.blob(job.sha256).stat().st_size
        if not job.group:
            self.store.name(job.sha256, job.destination)
        self._update(
            state="completed",
            offset=size,
            total=size,
            high=max(size, job.high),
            actual=job.sha256,
            verified=True,
            completed_at=0.0 if job.group else time.time(),
            attempts=0,
            retry_at=0.0,
            **NO_ERROR,
        )
        return self.job

    def _update(self, **changes: Any) -> None:
        from .storage.checkpoint import Superseded

        job = self.journal.update(self.job.id, self.job.run, **changes)
        if job is None:
            raise Superseded
        self.job = job
