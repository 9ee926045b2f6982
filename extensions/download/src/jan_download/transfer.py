"""One run of one job, in a thread of its own: from the first byte that is missing to the file under its
final name.

It moves bytes and records how far they are safe. Whether and when a job runs again is the manager's business.
Laid out for several connections: `Checkpointer` and `Partial` take writes at any offset; this slice uses one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jan_core import JanError, StorageError
from jan_core.types import AdoptedFile, DownloadSource

from .answers import announced_size, range_problem
from .checkpoint import Checkpointer, Superseded
from .errors import BadSource, DiskFull, DownloadConflict, HashMismatch, SourceUnauthorized
from .journal import Journal
from .ranges import strong_validator
from .records import Job
from .stop import Stop, Stopped
from .store import Partial, Store, digest_of
from .transport import Answer, Transport, Unreachable, host_of

if TYPE_CHECKING:
    import hashlib

__all__ = ["Transfer"]

_CHUNK = 1 << 18
_EXPIRED_LINKS = 3


@dataclass
class Transfer:
    """Everything a run needs. `report` is called from its threads with each durable step."""

    job: Job
    sources: list[DownloadSource]
    journal: Journal
    store: Store
    transport: Transport
    reserve: int
    report: Callable[[Job], None]
    adopted: AdoptedFile | None = None
    stop: Stop = field(default_factory=Stop)
    _may_resume: bool = True

    def run(self) -> Job:
        """Bring the file. Returns the completed job.

        Raises Stopped, Superseded, Unreachable (try again later), a JanError of `errors` (a person must
        act), StorageError, or OSError for a disk that fails.
        """
        try:
            if self._published_before():
                return self._complete()
            if self.adopted is not None and self._adopt(self.adopted):
                return self._publish()
            self._fetch()
            return self._publish()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(
                    "the disk is full; what was fetched is kept", needed=0, free=self.store.free()
                ) from error
            raise
        finally:
            self.transport.close()

    # -- bytes from somewhere else on this machine ----------------------------------------

    def _published_before(self) -> bool:
        """Whether an earlier run was killed between giving the file its name and saying so."""
        job, final = self.job, self.store.final(self.job.destination)
        if not job.actual or self._path.exists() or not final.is_file():
            return False
        digest, _ = digest_of(final, stopped=self.stop.is_set)
        self._unless_stopped()
        return digest.hexdigest() == job.actual

    def _adopt(self, adopted: AdoptedFile) -> bool:
        """Copy what this machine already has, checking the copy; False when it is not what it is said to
        be."""
        path = Path(adopted.path)
        if self.job.offset or not path.is_file() or (self.job.size and path.stat().st_size != self.job.size):
            return False
        import hashlib

        self._room_for(path.stat().st_size)
        digest, written = hashlib.sha256(), 0
        partial = Partial(self._path)
        try:
            partial.truncate(0)
            with path.open("rb") as source:
                while data := source.read(_CHUNK):
                    self._unless_stopped()
                    partial.write(data, written)
                    digest.update(data)
                    written += len(data)
            partial.sync()
        finally:
            partial.close()
        if digest.hexdigest() != self.job.sha256:
            return False
        self._update(offset=written, total=written, high=written, actual=digest.hexdigest(), origin=adopted.origin)
        return True

    # -- bytes from the network ----------------------------------------

    def _fetch(self) -> None:
        """Fetch what is missing from the first source that has it; sources that fail for good are passed
        over."""
        if not self.sources:
            raise BadSource("nobody knows a place to get this file from: it has no URL")
        later: Unreachable | None = None
        final: JanError | None = None
        begun = self.job.source if self.job.offset else ""
        for source in sorted(self.sources, key=lambda s: s.url != begun):
            if later is not None and self.job.offset and not self._continues(source):
                continue  # waiting for the source that was begun with beats throwing its bytes away
            try:
                self._fetch_from(source)
                return
            except Unreachable as error:
                self._unless_stopped()
                later = later or error
            except (DiskFull, HashMismatch, StorageError):
                raise
            except JanError as error:
                final = final or error
        if later is not None:
            raise later
        assert final is not None
        raise final

    def _fetch_from(self, source: DownloadSource) -> None:
        digest, offset = self._resume_point(source)
        if offset and offset == self.job.expected:
            self._check(digest.hexdigest())
            return
        answer = self._ask(source, offset)
        try:
            self.stop.watch(answer)
            if offset and answer.status != 206:
                # The server has another version or cannot do ranges: this answer is the whole file.
                digest, offset = self._start_anew(), 0
            self._accept(answer, source, offset)
            self._receive(answer, digest)
        finally:
            self.stop.watch(None)
            answer.close()
        self._check(digest.hexdigest())

    def _ask(self, source: DownloadSource, offset: int) -> Answer:
        """The response to read: 200, or a 206 that begins exactly at `offset`."""
        headers: dict[str, str] = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if self.job.validator and self.job.source == source.url:
                headers["If-Range"] = self.job.validator
        try:
            answer = self.transport.get(source, headers)
        except SourceUnauthorized as error:
            if error.data.get("redirected") and self.job.attempts < _EXPIRED_LINKS:
                raise Unreachable(f"{error.message}; the link may have expired, it is asked for anew") from error
            raise
        problem = range_problem(answer, self.job, source, offset)
        if not problem:
            return answer
        answer.close()
        if not offset:
            raise BadSource(problem, host=host_of(answer.url))
        self._start_anew()
        self._may_resume = False
        return self._ask(source, 0)

    def _accept(self, answer: Answer, source: DownloadSource, offset: int) -> None:
        """Check the size that the server announces, and note what is needed to resume."""
        total = announced_size(answer)
        if self.job.size and total and total != self.job.size:
            raise BadSource(
                f"{host_of(answer.url)} has a file of {total} bytes, not {self.job.size} as was asked for",
                host=host_of(answer.url),
                expected=self.job.size,
                actual=total,
            )
        if total:
            self._room_for(total - offset)
        self._update(
            total=total or (self.job.total if offset else 0),
            source=source.url,
            validator=strong_validator(answer.headers),
        )

    def _receive(self, answer: Answer, digest: hashlib._Hash) -> None:
        """Read the body to its end. Whatever happens, what has been written is journaled before this
        returns."""
        expected = self.job.expected
        partial = Partial(self._path)
        try:
            partial.truncate(self.job.offset)
            checkpointer = Checkpointer(
                self.job,
                partial,
                journal=self.journal,
                store=self.store,
                reserve=self.reserve,
                report=self.report,
                failed=self.stop.interrupt,
            )
            written = self.job.offset
            try:
                with checkpointer:
                    while data := answer.read(_CHUNK):
                        if expected and written + len(data) > expected:
                            raise BadSource(
                                f"{host_of(answer.url)} sends more than {expected} bytes", expected=expected
                            )
                        partial.write(data, written)
                        digest.update(data)
                        written += len(data)
                        checkpointer.written = written
                        if checkpointer.error is not None or self.stop.is_set():
                            break
            finally:
                self.job = checkpointer.job
                if checkpointer.error is not None:
                    raise checkpointer.error
                self._unless_stopped()
        finally:
            partial.close()
        if expected and written < expected:
            raise Unreachable(f"{host_of(answer.url)}: the connection broke")

    def _resume_point(self, source: DownloadSource) -> tuple[hashlib._Hash, int]:
        """How much of the file is there and may be continued from this source, with its running hash."""
        job = self.job
        if not job.offset or not self._may_resume or not self._continues(source):
            return self._start_anew(), 0
        digest, found = digest_of(self._path, job.offset, stopped=self.stop.is_set)
        self._unless_stopped()
        if found < job.offset:
            self._update(offset=found, discarded=job.discarded + job.offset - found)
        return digest, found

    def _continues(self, source: DownloadSource) -> bool:
        """Whether `source` may continue what there is: its own validator proves the version, or the hash
        will."""
        job = self.job
        provable = bool(job.validator) and job.source == source.url
        return provable or bool(job.sha256 and job.size) or job.offset == job.expected

    def _start_anew(self) -> hashlib._Hash:
        """Give up what was fetched, and count it as such."""
        import hashlib

        if self.job.offset:
            self._update(
                offset=0,
                total=0,
                validator="",
                source="",
                actual="",
                discarded=self.job.discarded + self.job.offset,
            )
        return hashlib.sha256()

    # -- the end ----------------------------------------

    def _check(self, actual: str) -> None:
        job = self.job
        if job.sha256 and actual != job.sha256:
            self.store.discard(job.partial)
            self._start_anew()
            raise HashMismatch(
                "the file is not the one that was asked for: its SHA-256 differs; it was thrown away",
                expected=job.sha256,
                actual=actual,
            )
        if job.size and job.offset != job.size:
            self.store.discard(job.partial)
            self._start_anew()
            raise BadSource(f"the file has {job.offset} bytes, not {job.size}; it was thrown away", expected=job.size)
        self._update(actual=actual, total=job.offset, high=max(job.high, job.offset))

    def _publish(self) -> Job:
        """The bytes are right and on the disk: give them their name."""
        if self.store.final(self.job.destination).exists():
            raise DownloadConflict(f"there is a file {self.job.destination} by now", destination=self.job.destination)
        self._update(state="verifying")
        self.report(self.job)
        self.store.publish(self.job.partial, self.job.destination)
        return self._complete()

    def _complete(self) -> Job:
        import time

        size = self.store.final(self.job.destination).stat().st_size
        self._update(
            state="completed",
            offset=size,
            total=size,
            high=max(size, self.job.high),
            verified=bool(self.job.sha256),
            completed_at=time.time(),
            error_type="",
            error_code=0,
            error="",
            retryable=False,
            attempts=0,
        )
        return self.job

    @property
    def _path(self) -> Path:
        return self.store.partial(self.job.partial)

    def _update(self, **changes: Any) -> None:
        job = self.journal.update(self.job.id, self.job.run, **changes)
        if job is None:
            raise Superseded
        self.job = job

    def _unless_stopped(self) -> None:
        if self.stop.is_set():
            raise Stopped

    def _room_for(self, size: int) -> None:
        free = self.store.free()
        if size + self.reserve > free:
            raise DiskFull(
                f"{size} bytes are still to come, {self.reserve} are to stay free, and {free} are free",
                needed=size + self.reserve,
                free=free,
            )
