"""The queue: which job runs when, and what becomes of it when its run ends.

The journal is the truth, shared with other generations and processes of the same data folder; the one that
holds the folder's lock moves the bytes. Transfers run in threads (`transfer`); this runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio

from jan_core import Context, JanError, StorageError
from jan_core.types import AdoptedFile, DownloadSource

from .errors import DownloadRefused
from .journal import Journal
from .lock import FolderLock
from .others import Others
from .progress import Meter
from .records import LIVE, Job
from .settings import DownloadSettings
from .store import Store
from .threads import in_thread

__all__ = ["Queue", "Run"]

_LOOK_AGAIN = 5.0
"""Seconds after which the journal is looked at without a reason: another process may have added a job."""
_EVENT_GAP = 0.25
_REPAIR_DELAY = 30.0
_LONGEST_WAIT = 3700.0
"""A job that says it waits longer than any job does was written under another clock: it is due."""


@dataclass(eq=False)
class Run:
    """A job whose thread is at work, or being prepared. `stop` is there once the thread is."""

    meter: Meter
    stop: Callable[[], None] | None = None
    stopping: bool = False
    ended: anyio.Event = field(default_factory=anyio.Event)
    shown: float = 0.0
    last: tuple[Any, ...] = ()

    def halt(self) -> None:
        self.stopping = True
        if self.stop is not None:
            self.stop()


class Queue:
    """Runs the jobs of a journal. `tell` is called on the event loop with each job that changed."""

    def __init__(
        self, ctx: Context, journal: Journal, store: Store, others: Others, tell: Callable[[Job], None]
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.admitted: set[str] = set()
        """Jobs that were voted on a moment ago and need not be again."""
        self._held: set[str] = set()
        self._ctx, self._journal, self._store, self._others, self._tell = ctx, journal, store, others, tell
        self._lock = FolderLock(ctx.data_dir / "downloads.lock")
        self._wake = anyio.Event()
        self._served = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._closing = False
        self._complained = False

    @property
    def settings(self) -> DownloadSettings:
        settings: DownloadSettings = self._ctx.settings
        return settings

    def wake(self) -> None:
        """There is something to start."""
        self._wake.set()

    @contextlib.asynccontextmanager
    async def halted(self, job_id: str) -> AsyncIterator[None]:
        """End a job's run, if there is one here, and start no other while the block goes on.

        Waits 1 s at most: a thread may hang in a name lookup. It can no longer change the job once its run number did.
        """
        self._held.add(job_id)
        try:
            run = self.runs.get(job_id)
            if run is not None:
                run.halt()
                with anyio.move_on_after(1.0):
                    await run.ended.wait()
            yield
        finally:
            self._held.discard(job_id)
            self.wake()

    async def serve(self) -> None:
        """Run jobs until closed. Begins when the generation or process before has let go of the folder."""
        try:
            await self._serve()
        finally:
            self._served.set()

    async def _serve(self) -> None:
        while not self._acquired():
            await self._rest(0.2)
            if self._closing:
                return
        if self._journal.exists:
            for job in await in_thread(self._recover, self.settings.resume_at_start):
                self._tell(job)
        while not self._closing:
            await self._rest(await self._start_due() if self._journal.exists else _LOOK_AGAIN)

    def _acquired(self) -> bool:
        """Whether this one moves the bytes. A folder that cannot be written now may be later: it is asked again."""
        try:
            return self._lock.acquire()
        except OSError as error:
            if not self._complained:
                self._complained = True
                self._ctx.log.warning("no download can run: %s", error)
            return False

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

    def _recover(self, again: bool) -> list[Job]:
        """Take up what an exit or a crash interrupted, and remove partial files nobody will ask for."""
        changed = []
        for job in self._journal.jobs(("running", "verifying", *(() if again else ("queued", "waiting")))):
            state = "queued" if again else "paused"
            after = self._journal.update(job.id, job.run, state=state, run=job.run + 1)
            changed += [after] if after is not None else []
        self._store.sweep({job.partial for job in self._journal.jobs((*LIVE, "failed"))})
        if self._journal.recovered:
            self._ctx.log.warning("%s", self._journal.recovered)
        return changed

    async def _start_due(self) -> float:
        """Start what may start now; returns the seconds until something else may."""
        try:
            jobs = await in_thread(self._journal.jobs, ("queued", "waiting", "running", "verifying"))
        except StorageError as error:
            self._ctx.log.error("%s", error)
            return _LOOK_AGAIN
        now, delay = time.time(), _LOOK_AGAIN
        for job in jobs:
            if job.id in self.runs or job.id in self._held or self._closing:
                continue
            if job.state in ("running", "verifying"):
                # A run ended and could not be journaled (a full disk, say): try again after a while.
                lost = StorageError("the end of the last run could not be recorded")
                await self._settle(job, lost, _REPAIR_DELAY)
            elif job.state == "waiting" and now < job.retry_at <= now + _LONGEST_WAIT:
                delay = min(delay, job.retry_at - now)
            elif len(self.runs) < self.settings.max_running:
                self.runs[job.id] = Run(Meter(job.offset, time.monotonic()))
                self._ctx.tasks.start_soon(self._perform, job, name=f"download {job.id}")
        return delay

    async def _perform(self, job: Job) -> None:
        """One run of one job, from the votes to the state it ends in."""
        run = self.runs[job.id]
        try:
            await self._prepare_and_run(job, run)
            after = await in_thread(self._journal.get, job.id)
            if after is not None and after.state == "cancelled":
                await in_thread(self._store.discard, after.partial)
        except StorageError as error:
            self._ctx.log.error("download %s: %s", job.id, error)
        finally:
            del self.runs[job.id]
            run.ended.set()
            self.wake()

    async def _prepare_and_run(self, job: Job, run: Run) -> None:
        error: Exception | None
        try:
            if job.state == "queued" and job.id not in self.admitted:
                await self._others.admit(job)
            self.admitted.discard(job.id)
            adopted = await self._others.copy_here(job)
            sources = await self._others.sources(job)
        except JanError as refusal:
            return await self._settle(job, refusal)
        started = await in_thread(
            self._journal.update, job.id, job.run, state="running", run=job.run + 1, retry_at=0.0, **_NO_ERROR
        )
        if started is None or run.stopping:
            return None  # somebody changed it meanwhile
        self._tell(started)
        error = await self._transfer(started, run, sources, adopted)
        if error is not None:
            return await self._settle(started, error)
        done = await in_thread(self._journal.get, job.id)
        if done is not None:
            self._tell(done)
        return None

    async def _transfer(
        self, job: Job, run: Run, sources: list[DownloadSource], adopted: AdoptedFile | None
    ) -> Exception | None:
        """Run the thread to its end; returns what it ended with, None when the file is there."""
        from .stop import Stop
        from .transfer import Transfer
        from .transport import Transport

        settings, ended, stop = self.settings, anyio.Event(), Stop()
        failure: list[Exception] = []
        transfer = Transfer(
            job=job,
            sources=sources,
            journal=self._journal,
            store=self._store,
            transport=Transport(settings.connect_timeout, settings.stall_timeout),
            reserve=settings.reserve_bytes,
            report=partial(self._on_loop, self._progress),
            adopted=adopted,
            stop=stop,
        )

        def work() -> None:
            try:
                transfer.run()
            except Exception as error:  # everything: it is judged on the loop, by `_settle`
                failure.append(error)
            self._on_loop(ended.set)

        run.stop = stop.set
        run.meter = Meter(job.offset, time.monotonic())
        threading.Thread(target=work, name=f"download {job.id}", daemon=True).start()
        try:
            await ended.wait()
        except BaseException:
            stop.set()
            with anyio.move_on_after(2.0, shield=True):
                await ended.wait()
            raise
        return failure[0] if failure else None

    async def _settle(self, job: Job, error: Exception, delay: float = 0.0) -> None:
        """Record how a run ended that did not bring the file. Raises StorageError."""
        from .checkpoint import Superseded
        from .stop import Stopped
        from .transport import Unreachable

        if isinstance(error, Stopped | Superseded):
            return  # whoever did it records the state
        now = await in_thread(self._journal.get, job.id) or job
        shown: JanError = JanError("the download failed: see the log")
        changes: dict[str, Any] = {"state": "failed"}
        if isinstance(error, Unreachable):
            shown = error.error
            longest = min(self.settings.retry_longest, self.settings.retry_first * 2.0 ** min(now.attempts, 20))
            delay = max(error.delay, random.uniform(0.5, 1.0) * longest)
        elif isinstance(error, JanError):
            shown = error
        elif isinstance(error, OSError):
            shown = StorageError(f"the disk: {error.strerror or error}")
        else:
            self._ctx.log.error("download %s failed", job.id, exc_info=error)
        if delay:
            changes = {"state": "waiting", "retry_at": time.time() + delay, "attempts": now.attempts + 1}
        elif isinstance(error, DownloadRefused):
            changes = {"state": "paused"}
        changes |= {"error_type": shown.type, "error_code": shown.code, "error": shown.message}
        after = await in_thread(
            self._journal.update, job.id, job.run, run=job.run + 1, retryable=shown.retryable, **changes
        )
        if after is not None:
            level = logging.INFO if after.state == "waiting" else logging.WARNING
            self._ctx.log.log(level, "download %s of %s is %s: %s", job.id, job.name, after.state, shown)
            self._tell(after)

    def _progress(self, job: Job) -> None:
        """A run came further. At most four times a second this is told; never when nothing changed."""
        run = self.runs.get(job.id)
        if run is None:
            return
        now = time.monotonic()
        run.meter.add(job.offset, now)
        content = (job.state, job.high, job.discarded, round(run.meter.speed))
        if content != run.last and (now - run.shown >= _EVENT_GAP or job.state != "running"):
            run.shown, run.last = now, content
            self._tell(job)

    def _on_loop(self, function: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            self._loop.call_soon_threadsafe(function, *args)

    async def _rest(self, seconds: float) -> None:
        with anyio.move_on_after(seconds):
            await self._wake.wait()
        if self._wake.is_set():
            self._wake = anyio.Event()


_NO_ERROR: dict[str, Any] = {"error_type": "", "error_code": 0, "error": "", "retryable": False}
