"""The queue: runs the jobs of a journal, each when its turn comes, and records what becomes of them.

The journal is the truth, shared with other generations and processes of the same data folder; the one that holds the
folder's lock moves the bytes. Whose turn it is says `turns`; a run is a thread (`run`); this is on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from functools import partial
from typing import Any

import anyio

from jan_core import Context, JanError, StorageError

from .errors import DownloadRefused
from .journal import Journal
from .limits import Bucket
from .lock import FolderLock
from .others import Others
from .outcome import NO_ERROR, after_lost_end, changes_after
from .records import LIVE, Job
from .reservation import lacking, reserve_of
from .running import Run
from .schedule import Schedule
from .settings import DownloadSettings
from .status import Status
from .storage.store import Store
from .threads import in_thread
from .turns import LOOK_AGAIN, Turns, World, order, take_turns, words

__all__ = ["Queue"]

_SETTINGS_AGAIN = 0.5
"""Seconds after which a change of the settings counts while there is something to run."""


class Queue:
    """Runs jobs. `tell` is called on the event loop with each job that changed."""

    def __init__(
        self, ctx: Context, journal: Journal, store: Store, others: Others, tell: Callable[[Job], None]
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.admitted: set[str] = set()
        """Jobs that were voted on a moment ago and need not be again."""
        self._held: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._ctx, self._journal, self._store, self._others, self._tell = ctx, journal, store, others, tell
        self._lock = FolderLock(ctx.data_dir / "downloads.lock")
        self._wake = anyio.Event()
        self._served = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._complained = False
        self._settings = self.settings
        self._bucket = Bucket(lambda: self._settings.limit)

    @property
    def settings(self) -> DownloadSettings:
        settings: DownloadSettings = self._ctx.settings
        return settings

    def wake(self) -> None:
        """Something changed: look whose turn it is."""
        self._wake.set()

    def waiting_for(self, job: Job) -> str:
        """In a person's words, what a job waits for; "" when it waits for nothing."""
        return words(job, self._reasons.get(job.id, ""), time.time())

    def configured(self, job: Job) -> None:
        """A job's limit, priority or time was changed."""
        run = self.runs.get(job.id)
        if run is not None:
            run.limit = job.limit
        self.wake()

    @contextlib.asynccontextmanager
    async def halted(self, job_ids: Collection[str]) -> AsyncIterator[None]:
        """End the runs of jobs, if there are any here, and start no others while the block goes on.

        Waits 1 s at most: a thread may hang in a name lookup. It can no longer change the job once its run number did.
        """
        self._held.update(job_ids)
        try:
            runs = [run for job_id in job_ids if (run := self.runs.get(job_id)) is not None]
            for run in runs:
                run.halt()
            with anyio.move_on_after(1.0):
                for run in runs:
                    await run.ended.wait()
            yield
        finally:
            self._held.difference_update(job_ids)
            self.wake()

    async def serve(self) -> None:
        """Run jobs until closed. Begins when the generation or process before has let go of the folder."""
        try:
            while not self._acquired():
                await self._rest(0.2)
                if self._closing:
                    return
            if self._journal.exists:
                await self._take_up()
            while not self._closing:
                await self._rest(await self._turn() if self._journal.exists else LOOK_AGAIN)
        finally:
            self._served.set()

    async def close(self) -> None:
        """Stop moving bytes within 1.5 s. What was running goes on at the next start."""
        self._closing = True
        self.wake()
        runs = list(self.runs.values())
        for run in runs:
            run.halt()
        with anyio.move_on_after(1.5, shield=True):
            for run in runs:
                await run.ended.wait()
            await self._served.wait()
        self._lock.release()

    def _acquired(self) -> bool:
        """Whether this one moves the bytes. A folder that cannot be written now may be later: it is asked again."""
        try:
            return self._lock.acquire()
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._ctx.log.warning("no download can run: %s", error)
            return False

    async def _take_up(self) -> None:
        """Go on with what an exit or a crash interrupted."""
        from .groups import make_usable, unnamed
        from .storage.recovery import recover

        def work() -> Iterable[Job]:
            settings = self.settings
            found = recover(
                self._journal,
                self._store,
                resume=settings.resume_at_start,
                keep_partial_days=settings.keep_partial_days,
                stopped=lambda: self._closing,
            )
            for warning in found.warnings:
                self._ctx.log.warning("%s", warning)
            for group_id in unnamed(self._journal):
                found.jobs += make_usable(group_id, self._journal, self._store)
            return found.jobs

        try:
            for job in await in_thread(work):
                self._tell(job)
        except (JanError, OSError) as error:
            self._ctx.log.error("what was interrupted is not taken up: %s", error)

    # -- whose turn it is ----------------------------------------

    async def _turn(self) -> float:
        """Start and stop what is due; returns the seconds until something else may be."""
        self._settings = self.settings
        try:
            jobs = await in_thread(self._journal.jobs, LIVE)
            turns = await in_thread(self._turns, jobs)
        except (StorageError, OSError) as error:
            self._ctx.log.error("%s", error)
            return LOOK_AGAIN
        if self._closing:
            return LOOK_AGAIN
        before, self._reasons = self._reasons, turns.reasons
        for job in turns.ready:
            await self._become(job, state="queued", retry_at=0.0)
        for job in turns.halt:
            self.runs[job.id].halt(requeue=True)
        for job in turns.begin:
            if job.id not in self.runs and job.id not in self._held:
                await self._begin(job)
        for job in jobs:
            if job.id not in self.runs and _kind(turns.reasons.get(job.id, "")) != _kind(before.get(job.id, "")):
                self._tell(job)
        return turns.look_again

    def _turns(self, jobs: list[Job]) -> Turns:
        from .network.reach import online

        settings = self._settings
        running = set(self.runs)
        busy = self._held | {job_id for job_id, run in list(self.runs.items()) if run.stopping}
        world = World(
            now=time.time(),
            max_running=settings.max_running,
            schedule=Schedule.parse(settings.schedule),
            online=any(job.state == "offline" for job in jobs) and online(),
            free=self._store.free(),
            reserve=reserve_of(settings.reserve_bytes, self._store.capacity()),
            held=self._store.held,
        )
        return take_turns(jobs, running, busy, world)

    async def _begin(self, job: Job) -> None:
        if job.state in ("running", "verifying"):
            # A run ended and could not be journaled (a full disk, say): try again after a while.
            await self._become(job, **after_lost_end(time.time()))
            return
        self.runs[job.id] = Run(job, self._on_loop)
        self._ctx.tasks.start_soon(self._perform, job, name=f"download {job.id}")

    async def _become(self, job: Job, **changes: Any) -> Job | None:
        """Record how a job stands, unless somebody was faster, and tell it."""
        try:
            after = await in_thread(self._journal.update, job.id, job.run, run=job.run + 1, **changes)
        except StorageError as error:
            self._ctx.log.error("download %s: %s", job.id, error)
            return None
        if after is not None:
            self._tell(after)
        return after

    # -- one run ----------------------------------------

    async def _perform(self, job: Job) -> None:
        """One run of one job, from the votes to the state it ends in."""
        run = self.runs[job.id]
        try:
            try:
                if job.state == "queued" and job.id not in self.admitted:
                    await self._others.admit(job)
                self.admitted.discard(job.id)
            except DownloadRefused as refusal:
                return await self._settle(job, run, refusal)
            started = await in_thread(self._start, job)
            if started is None:
                return None  # somebody changed it meanwhile
            run.job = started
            self._tell(started)
            await self._settle(started, run, await run.work(self._work(started, run)))
        except (StorageError, OSError) as error:
            self._ctx.log.error("download %s: %s", job.id, error)
        finally:
            del self.runs[job.id]
            run.ended.set()
            self.wake()

    def _start(self, job: Job) -> Job | None:
        """Record that a job runs, with what another job with the same partial file had."""
        with self._journal.transaction():
            for other in self._journal.holders(job.sha256, job.partial):
                left = other.partial == job.partial and other.state != "completed" and other.id != job.id
                if left and other.offset > job.offset:
                    self._journal.inherit(other.id, job.id)
            return self._journal.update(job.id, job.run, state="running", run=job.run + 1, retry_at=0.0, **NO_ERROR)

    def _work(self, job: Job, run: Run) -> Callable[[], Job]:
        from .limits import Limits
        from .run import Work

        settings = self._settings
        return Work(
            job=job,
            journal=self._journal,
            store=self._store,
            settings=settings,
            limits=Limits(job.id, lambda: run.limit, self._bucket),
            reserve=reserve_of(settings.reserve_bytes, self._store.capacity()),
            stop=run.stop,
            log=self._ctx.log,
            copies=partial(run.ask, partial(self._others.copies, job)),
            sources=partial(run.ask, partial(self._others.sources, job)),
            missing=self._missing,
            report=partial(self._on_loop, self._progress),
        ).run

    def _missing(self, job: Job) -> int:
        """Bytes that must become free before `job` may have its own; asked by its thread."""
        jobs = self._journal.jobs(LIVE)
        ahead = [other for other in jobs if other.id != job.id and (order(other) < order(job) or other.id in self.runs)]
        reserve = reserve_of(self._settings.reserve_bytes, self._store.capacity())
        return lacking(job, ahead, self._store.held, self._store.free(), reserve)

    async def _settle(self, job: Job, run: Run, ended: Job | Exception) -> None:
        """Record how a run ended. Raises StorageError."""
        from .engine.stop import Stopped
        from .network.errors import Unreachable
        from .storage.checkpoint import Superseded

        error = ended if isinstance(ended, Exception) else await self._make_usable(ended)
        if isinstance(error, Stopped) and run.requeue and not self._closing:
            await self._become(job, state="queued")
        if error is None or isinstance(error, Stopped | Superseded):
            return  # whoever stopped it records the state
        if not isinstance(error, JanError | OSError | Unreachable):
            self._ctx.log.error("download %s failed", job.id, exc_info=error)
        now = await in_thread(self._journal.get, job.id) or job
        changes = await in_thread(self._changes_after, error, now)
        after = await self._become(job, **changes)
        if after is not None:
            level = logging.WARNING if after.state in ("failed", "paused") else logging.INFO
            self._ctx.log.log(level, "download %s of %s is %s: %s", job.id, job.name, after.state, after.error)

    def _changes_after(self, error: Exception, job: Job) -> dict[str, Any]:
        from .network.reach import online

        return changes_after(
            error,
            job,
            self._settings,
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
        run = self.runs.get(status.job.id)
        if run is not None and run.note(status):
            self._tell(status.job)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *args)

    async def _rest(self, seconds: float) -> None:
        """Wait until something is to be done. Settings are looked at meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._wake.is_set() and (left := deadline - time.monotonic()) > 0:
            live = bool(self.runs or self._reasons)
            with anyio.move_on_after(min(left, _SETTINGS_AGAIN) if live else left):
                await self._wake.wait()
            if live and self.settings != self._settings:
                break
        if self._wake.is_set():
            self._wake = anyio.Event()


def _kind(reason: str) -> str:
    """A reason without its figures: those alone are no news."""
    return "".join(letter for letter in reason if not letter.isdigit())
