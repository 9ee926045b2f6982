"""The runs of jobs, on the event loop: from the votes to the state in which each ends, recorded and told.

When a run begins is the queue's business; what it does is in `run`, in its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from jan_core import Context, JanError, StorageError
from jan_core.types import DownloadSource

from .errors import DiskFull, DownloadRefused
from .journal import Journal
from .limits import Bucket, Limits
from .others import Others
from .outcome import NO_ERROR, after_lost_end, changes_after
from .records import LIVE, Job
from .reservation import lacking, reserve_of
from .running import Run
from .settings import DownloadSettings
from .status import Status
from .storage.store import Store
from .threads import in_thread
from .turns import order

__all__ = ["Runs"]


class Runs:
    """Those of one queue. `tell` is called with each job that changed, `ended` when a run has, on the event loop.

    `settings` are those that hold now, from any thread.
    """

    def __init__(
        self,
        ctx: Context,
        journal: Journal,
        store: Store,
        others: Others,
        tell: Callable[[Job], None],
        *,
        settings: Callable[[], DownloadSettings],
        ended: Callable[[], None],
    ) -> None:
        self.all: dict[str, Run] = {}
        """By the id of their job."""
        self.admitted: set[str] = set()
        """Jobs that were voted on a moment ago and need not be again."""
        self.closing = False
        self._looked: set[str] = set()
        """Jobs for which copies were looked for: each attempt would take seconds, and find what the first one did."""
        self.settings = settings
        self._ctx, self._journal, self._store, self._others, self._tell = ctx, journal, store, others, tell
        self._ended = ended
        self._bucket = Bucket(lambda: settings().limit)
        self._loop = asyncio.get_running_loop()

    async def begin(self, job: Job) -> None:
        """Run a job whose turn it is. Returns when its run is there, not when it has ended."""
        if job.state in ("running", "verifying"):
            # A run ended and could not be journaled (a full disk, say): try again after a while.
            await self.become(job, **after_lost_end(time.time()))
            return
        self.all[job.id] = Run(job, self._on_loop)
        self._ctx.tasks.start_soon(self._perform, job, name=f"download {job.id}")

    async def become(self, job: Job, **changes: Any) -> Job | None:
        """Record how a job stands, unless somebody was faster, and tell it."""
        try:
            after = await in_thread(self._journal.update, job.id, job.run, run=job.run + 1, **changes)
        except StorageError as error:
            self._ctx.log.error("download %s: %s", job.id, error)
            return None
        if after is not None:
            self._tell(after)
        return after

    async def _perform(self, job: Job) -> None:
        """One run of one job, from the votes to the state it ends in."""
        run = self.all[job.id]
        try:
            try:
                if job.id in self.admitted:  # a person has just asked for it: perhaps there is a copy by now
                    self._looked.discard(job.id)
                elif job.state == "queued":
                    await self._others.admit(job)
                self.admitted.discard(job.id)
            except DownloadRefused as refusal:
                return await self._settle(job, run, refusal)
            started = await in_thread(self._start, job)
            if started is None:
                return None  # somebody changed it meanwhile
            run.job, run.started = started, True
            self._tell(started)
            await self._settle(started, run, await run.work(self._work(started, run)))
        except (StorageError, OSError) as error:
            self._ctx.log.error("download %s: %s", job.id, error)
        finally:
            del self.all[job.id]
            run.ended.set()
            self._ended()

    def _start(self, job: Job) -> Job | None:
        """Record that a job runs, with what another job with the same partial file had."""
        from .storage.inheriting import inherit

        with self._journal.transaction():
            for other in self._journal.holders(job.sha256, job.partial):
                left = other.partial == job.partial and other.state != "completed" and other.id != job.id
                if left and other.offset > job.offset:
                    inherit(other, job, self._journal)
            return self._journal.update(job.id, job.run, state="running", run=job.run + 1, retry_at=0.0, **NO_ERROR)

    def _work(self, job: Job, run: Run) -> Callable[[], Job]:
        from .run import Work

        settings = self.settings()
        look = job.id not in self._looked
        self._looked.add(job.id)
        return Work(
            job=job,
            journal=self._journal,
            store=self._store,
            settings=settings,
            limits=Limits(job.id, lambda: run.limit, self._bucket),
            reserve=reserve_of(settings.reserve_bytes, self._store.capacity()),
            stop=run.stop,
            log=self._ctx.log,
            look=look,
            copies=partial(run.ask, partial(self._others.copies, job)),
            sources=partial(run.ask, partial(self._sources, job)),
            missing=self._missing,
            report=partial(self._on_loop, self._progress),
        ).run

    async def _sources(self, job: Job) -> list[DownloadSource]:
        """Where the file can be had now: somebody may have named a better address."""
        now = await in_thread(self._journal.get, job.id)
        return await self._others.sources(now or job)

    def _missing(self, job: Job) -> int:
        """Bytes that must become free before `job` may have its own; asked by its thread."""
        jobs = self._journal.jobs(LIVE)
        ahead = [other for other in jobs if other.id != job.id and (order(other) < order(job) or other.id in self.all)]
        reserve = reserve_of(self.settings().reserve_bytes, self._store.capacity())
        return lacking(job, ahead, self._store.held, self._store.free(), reserve)

    async def _settle(self, job: Job, run: Run, ended: Job | Exception) -> None:
        """Record how a run ended. Raises StorageError."""
        from .engine.stop import Stopped
        from .network.errors import Unreachable
        from .storage.checkpoint import Superseded

        error = ended if isinstance(ended, Exception) else await self._make_usable(ended)
        if isinstance(error, Stopped) and run.requeue and not self.closing:
            await self.become(job, state="queued")
        if error is None or isinstance(error, Stopped | Superseded):
            return  # whoever stopped it records the state
        if not isinstance(error, JanError | OSError | Unreachable):
            self._ctx.log.error("download %s failed", job.id, exc_info=error)
        now = await in_thread(self._journal.get, job.id) or job
        changes = await in_thread(self._changes_after, error, now)
        after = await self.become(job, **changes)
        if isinstance(error, DiskFull) and not now.expected:  # it cannot be gone on with, and others need the room
            await in_thread(self._store.discard, now.partial)
        if after is not None:
            level = logging.WARNING if after.state in ("failed", "paused") else logging.INFO
            self._ctx.log.log(level, "download %s of %s is %s: %s", job.id, job.name, after.state, after.error)

    def _changes_after(self, error: Exception, job: Job) -> dict[str, Any]:
        from .network.reach import online

        return changes_after(
            error,
            job,
            self.settings(),
            now=time.time(),
            online=online(),
            free=self._store.free(),
            capacity=self._store.capacity(),
        )

    async def _make_usable(self, job: Job) -> Exception | None:
        """A job is complete. If its group is so with it, all of it may be used now."""
        from .groups import make_usable

        self._tell(job)
        try:
            for member in await in_thread(make_usable, job.group, self._journal, self._store) if job.group else []:
                self._tell(member)
        except (JanError, OSError) as error:
            return error
        return None

    def _progress(self, status: Status) -> None:
        """A run came further, or asks whether it is to be shown anew."""
        run = self.all.get(status.job.id)
        if run is not None and run.note(status):
            self._tell(status.job)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *args)
