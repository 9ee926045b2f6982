"""The queue: runs the jobs of a journal, each when its turn comes, and records what becomes of them.

The journal is the truth, shared with other generations and processes of the same data folder; the one that holds the
folder's lock moves the bytes. Whose turn it is says `turns`; what a run does is in `runs`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from functools import partial

import anyio

from jan_core import Context, JanError, StorageError

from .journal import Journal
from .lock import FolderLock
from .others import Others
from .records import LIVE, Job
from .reservation import reserve_of
from .running import Run
from .runs import Runs
from .schedule import Schedule
from .settings import DownloadSettings
from .shapes import Mover
from .storage.store import Store
from .threads import in_thread
from .turns import LOOK_AGAIN, Turns, World, take_turns, words

__all__ = ["Queue"]

_DAY = 86_400.0
_RECOVERIES = 3
"""Attempts to take up what was interrupted; then the queue goes on without."""
_LOOK_SHORT = 0.5
"""Seconds after which a change of the settings, or of a job by another process, counts while there is something to
run."""


class Queue:
    """Runs jobs. `tell` is called on the event loop with each job that changed."""

    def __init__(
        self, ctx: Context, journal: Journal, store: Store, others: Others, tell: Callable[[Job], None]
    ) -> None:
        self._held: set[str] = set()
        self._reasons: dict[str, str] = {}
        self._ctx, self._journal, self._store, self._tell = ctx, journal, store, tell
        self._lock = FolderLock(ctx.data_dir / "downloads.lock")
        self._wake = anyio.Event()
        self._served = anyio.Event()
        self._complained = self._elsewhere = False
        self._tidy_at = time.monotonic() + _DAY
        self._settings = self.settings
        self.runs = Runs(ctx, journal, store, others, tell, settings=lambda: self._settings, ended=self.wake)

    @property
    def settings(self) -> DownloadSettings:
        settings: DownloadSettings = self._ctx.settings
        return settings

    @property
    def mover(self) -> Mover:
        """Who moves the bytes of this data folder, as was found a moment ago."""
        return "here" if self._lock.held else "elsewhere" if self._elsewhere else ""

    def wake(self) -> None:
        """Something changed: look whose turn it is."""
        self._wake.set()

    def waiting_for(self, job: Job) -> str:
        """In a person's words, what a job waits for; "" when it waits for nothing."""
        return words(job, self._reasons.get(job.id, ""), time.time())

    def configured(self, job: Job) -> None:
        """A job's limit, priority or time was changed."""
        run = self.runs.all.get(job.id)
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
            runs = [run for job_id in job_ids if (run := self.runs.all.get(job_id)) is not None]
            for run in runs:
                run.halt()
            with anyio.move_on_after(1.0):
                for run in runs:
                    await run.ended.wait()
            yield
        finally:
            self._held.difference_update(job_ids)
            self.wake()

    async def serve(self, settle: float = 0.0) -> None:
        """Run jobs until closed. Begins when the generation or process before has let go of the folder.

        What was interrupted goes on after `settle` seconds, or when somebody asks for something: a command that only
        looks is over by then, and has used no network.
        """
        try:
            while not self._acquired():
                await self._rest(0.2)
                if self.runs.closing:
                    return
            await self._rest(settle)
            for _ in range(_RECOVERIES):
                if not self._journal.exists or self.runs.closing or await self._take_up():
                    break
                await self._rest(LOOK_AGAIN)
            while not self.runs.closing:
                if time.monotonic() > self._tidy_at:
                    await self._tell_all(self._tidied, "what was given up is not removed")
                await self._rest(await self._turn() if self._journal.exists else LOOK_AGAIN)
        finally:
            self._served.set()

    async def close(self) -> None:
        """Stop moving bytes within 1.5 s. What was running goes on at the next start."""
        self.runs.closing = True
        self.wake()
        runs = list(self.runs.all.values())
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
            self._elsewhere = not self._lock.acquire()
            return self._lock.held
        except OSError as error:
            self._elsewhere = False
            if not self._complained:
                self._complained = True
                self._ctx.log.warning("no download can run: %s", error)
            return False

    async def _take_up(self) -> bool:
        """Go on with what an exit or a crash interrupted. Whether that was possible."""
        from .groups import make_usable, unnamed
        from .storage.recovery import recover

        def work() -> Iterable[Job]:
            settings = self.settings
            found = recover(
                self._journal,
                self._store,
                resume=settings.resume_at_start,
                keep_partial_days=settings.keep_partial_days,
                stopped=lambda: self.runs.closing,
            )
            for warning in found.warnings:
                self._ctx.log.warning("%s", warning)
            for group_id in unnamed(self._journal):
                found.jobs += make_usable(group_id, self._journal, self._store)
            return found.jobs + self._tidied()

        return await self._tell_all(work, "what was interrupted is not taken up")

    def _tidied(self) -> list[Job]:
        """Remove what was given up long ago; the changed jobs."""
        from .groups import let_go
        from .storage.recovery import sweep

        self._tidy_at = time.monotonic() + _DAY
        days = self.settings.keep_partial_days
        sweep(self._journal, self._store, days)
        return let_go(self._journal, self._store, days * _DAY)

    async def _tell_all(self, work: Callable[[], Iterable[Job]], otherwise: str) -> bool:
        """Do something in a thread, and tell what it changed. Whether it worked."""
        try:
            for job in await in_thread(work):
                self._tell(job)
        except Exception as error:
            self._note(otherwise, error)
            return False
        return True

    def _note(self, what: str, error: Exception) -> None:
        """Log what went wrong: a mistake in here must not end the queue, for which callers wait."""
        self._ctx.log.error("%s: %s", what, error, exc_info=None if isinstance(error, JanError | OSError) else error)

    # -- whose turn it is ----------------------------------------

    async def _turn(self) -> float:
        """Start and stop what is due; returns the seconds until something else may be."""
        try:
            return await self._begin_and_halt()
        except Exception as error:
            self._note("no download is begun now", error)
            return LOOK_AGAIN

    async def _begin_and_halt(self) -> float:
        self._settings = self.settings
        runs = list(self.runs.all.values())  # before the jobs: what ends meanwhile would be taken for left behind
        jobs = await in_thread(self._journal.jobs, LIVE)
        turns = await in_thread(self._turns, jobs, runs)
        if self.runs.closing:
            return LOOK_AGAIN
        before, self._reasons = self._reasons, turns.reasons
        for job in turns.ready:
            await self.runs.become(job, state="queued", retry_at=0.0)
        for job in turns.halt:
            if (run := self.runs.all.get(job.id)) is not None and not run.stopping:
                run.halt(requeue=True)
        for job in turns.begin:
            if job.id not in self.runs.all and job.id not in self._held:
                await self.runs.begin(job)
        told = {job.id for job in turns.ready}
        for job in jobs:
            news = _kind(turns.reasons.get(job.id, "")) != _kind(before.get(job.id, ""))
            if news and job.id not in self.runs.all and job.id not in told:
                await self._tell_all(partial(self._fresh, job.id), "why a download waits cannot be told")
        return turns.look_again

    async def _halt_superseded(self) -> None:
        """Stop runs whose job another process has changed, also those in which nothing moves that would notice."""
        runs = [run for run in self.runs.all.values() if run.started and not run.stopping]
        try:
            jobs = [await in_thread(self._journal.get, run.job.id) for run in runs]
        except StorageError:
            return  # whoever writes next to it says so
        for run, job in zip(runs, jobs, strict=True):
            if job is None or job.run != run.job.run:
                run.halt()

    def _fresh(self, job_id: str) -> list[Job]:
        job = self._journal.get(job_id)
        return [job] if job is not None else []

    def _turns(self, jobs: list[Job], runs: list[Run]) -> Turns:
        from .network.reach import online

        settings = self._settings
        running = {run.job.id for run in runs}
        busy = self._held | {run.job.id for run in runs if run.stopping}
        world = World(
            now=time.time(),
            max_running=settings.max_running,
            schedule=Schedule.parse(settings.schedule),
            online=any(job.state == "offline" for job in jobs) and online(),
            free=self._store.free(),
            reserve=reserve_of(settings.reserve_bytes, self._store.capacity()),
            held=self._store.held,
        )
        written = {run.job.partial for run in runs}
        return take_turns(jobs, running, busy, world, written)

    async def _rest(self, seconds: float) -> None:
        """Wait until something is to be done. Settings are looked at meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._wake.is_set() and (left := deadline - time.monotonic()) > 0:
            live = bool(self.runs.all or self._reasons)
            with anyio.move_on_after(min(left, _LOOK_SHORT) if live else left):
                await self._wake.wait()
            await self._halt_superseded()
            if live and self.settings != self._settings:
                break
        if self._wake.is_set():
            self._wake = anyio.Event()


def _kind(reason: str) -> str:
    """A reason without its figures: those alone are no news."""
    return "".join(letter for letter in reason if not letter.isdigit())
