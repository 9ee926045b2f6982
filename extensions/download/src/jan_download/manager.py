"""All downloads of one data folder: what callers may ask and do. `queue` runs them, `journal` remembers
them."""

from __future__ import annotations

from typing import Any

import anyio
import msgspec

from jan_core import Context

from .errors import DownloadConflict, DownloadNotFound
from .intake import admit_new
from .journal import Journal
from .others import Others
from .queue import Queue
from .records import LIVE, Job
from .shapes import Download
from .store import Store
from .threads import in_thread

__all__ = ["Downloads"]


class Downloads:
    """One generation's hold on the downloads."""

    def __init__(self, ctx: Context) -> None:
        self.store = Store(ctx.data_dir)
        self.journal = Journal(ctx.data_dir / "downloads.db")
        self._ctx = ctx
        self._others = Others(ctx, self.journal, self.store)
        self._changes: dict[str, anyio.Event] = {}
        self.queue = Queue(ctx, self.journal, self.store, self._others, self._tell)

    async def close(self) -> None:
        """Stop moving bytes and close the journal; what was running goes on at the next start."""
        await self.queue.close()
        await in_thread(self.journal.close)

    async def get(self, job_id: str) -> Download:
        """One job. Raises DownloadNotFound."""
        return self.show(await self._job(job_id))

    def show(self, job: Job) -> Download:
        """A job as callers see it, with its speed when it runs here."""
        run = self.queue.runs.get(job.id) if job.state == "running" else None
        speed, eta = 0.0, None
        if run is not None:
            speed = run.meter.speed
            eta = run.meter.eta(job.expected - job.offset) if job.expected else None
        return Download.of(job, str(self.store.final(job.destination)), speed=speed, eta=eta)

    def change(self, job_id: str) -> anyio.Event:
        """Set at the next change of a job that this generation sees. Take it before looking at the job."""
        return self._changes.setdefault(job_id, anyio.Event())

    async def announce(self, job_id: str) -> None:
        """Tell everybody how a job stands that was changed elsewhere."""
        self._tell(await self._job(job_id))

    async def add(self, job: Job) -> Job:
        """Queue a job, or take up the one there is for the same file; also a complete one.

        Raises DownloadConflict, DiskFull, DownloadRefused, StorageError.
        """
        reserve = self.queue.settings.reserve_bytes
        found = await in_thread(admit_new, job, self.journal, self.store, reserve)
        if found is not None:
            return found if found.state not in ("paused", "failed") else await self.resume(found.id)
        await self._others.admit(job)
        # Looked at again: another call for the same file may have been faster while the votes came in.
        found = await in_thread(self._insert, job, reserve)
        if found is not None:
            return found
        self.queue.admitted.add(job.id)
        self._tell(job)
        self.queue.wake()
        return job

    def _insert(self, job: Job, reserve: int) -> Job | None:
        with self.journal.transaction():
            found = admit_new(job, self.journal, self.store, reserve)
            if found is None:
                self.journal.add(job)
            return found

    async def pause(self, job_id: str) -> Job:
        """Stop a job and keep what it has. Raises DownloadNotFound, DownloadConflict when it has ended."""
        if (job := await self._job(job_id)).state == "paused":
            return job
        _only(job, LIVE, "only one under way can be paused")
        async with self.queue.halted(job_id):
            return await self._intervene(job_id, LIVE, state="paused")

    async def resume(self, job_id: str) -> Job:
        """Queue a job that was paused, failed or waits.

        Raises DownloadNotFound, DownloadConflict, DownloadRefused.
        """
        if (job := await self._job(job_id)).state in ("queued", "running", "verifying"):
            return job
        _only(job, ("paused", "failed", "waiting"), "start it anew")
        await self._others.admit(job)
        self.queue.admitted.add(job_id)
        return await self._intervene(
            job_id,
            ("paused", "failed", "waiting", "queued"),
            state="queued",
            attempts=0,
            error_type="",
            error_code=0,
            error="",
            retryable=False,
        )

    async def cancel(self, job_id: str) -> Job:
        """Give a job up and remove what it has. Raises DownloadNotFound, DownloadConflict when complete."""
        if (job := await self._job(job_id)).state == "cancelled":
            return job
        _only(job, (*LIVE, "failed"), "there is nothing to cancel")
        async with self.queue.halted(job_id):
            job = await self._intervene(job_id, (*LIVE, "failed"), state="cancelled", offset=0)
        if job_id not in self.queue.runs:  # else its thread has not let go yet, and the queue removes it then
            await in_thread(self.store.discard, job.partial)
        return job

    async def _job(self, job_id: str) -> Job:
        job = await in_thread(self.journal.get, job_id) if self.journal.exists else None
        if job is None:
            raise DownloadNotFound(f"there is no download {job_id!r}", id=job_id)
        return job

    async def _intervene(self, job_id: str, states: tuple[str, ...], **changes: Any) -> Job:
        """Change a job from outside; a run that still knows the old state can no longer touch it."""
        while True:
            job = await self._job(job_id)
            _only(job, states, "it got there while this was asked")
            after = await in_thread(self.journal.update, job_id, job.run, run=job.run + 1, **changes)
            if after is not None:
                self._tell(after)
                self.queue.wake()
                return after

    def _tell(self, job: Job) -> None:
        self._ctx.emit("downloads.changed", msgspec.to_builtins(self.show(job)), key=job.id)
        self._changes.pop(job.id, anyio.Event()).set()


def _only(job: Job, states: tuple[str, ...], otherwise: str) -> None:
    if job.state not in states:
        raise DownloadConflict(f"the download is {job.state}; {otherwise}", id=job.id, state=job.state)
