"""All downloads of one data folder: what callers may ask and do. `queue` runs them, `journal` remembers them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from jan_core import Context

from .errors import DownloadConflict, DownloadNotFound
from .history import History
from .intake import find_same, insert, news, paired, taken
from .journal import Journal
from .others import Others
from .outcome import NO_ERROR
from .progress import Teller
from .queue import Queue
from .records import ENDED, LIVE, Job, JobState
from .reservation import reserve_of
from .shapes import Download, Removed, Verification
from .showing import piece_maps, show
from .status import Status
from .storage.store import Store
from .threads import in_thread

__all__ = ["Downloads"]


class Downloads:
    """One generation's hold on the downloads. Ids are those of jobs (`dl-`), or of groups (`dg-`) where it is said."""

    def __init__(self, ctx: Context) -> None:
        self.store = Store(ctx.data_dir)
        self.journal = Journal(ctx.data_dir / "downloads.db")
        self.history = History(self.journal, ctx.log)
        self._ctx = ctx
        self._others = Others(ctx, self.store)
        self._changes: dict[str, anyio.Event] = {}
        self._teller: Teller[Download] = Teller(self._emit, asyncio.get_running_loop())
        self._statuses: dict[str, Status] = {}
        """How the last run of a job that has not ended stood, for as long as it does not run."""
        self.queue = Queue(ctx, self.journal, self.store, self._others, self._tell)

    async def close(self) -> None:
        """Stop moving bytes and close the journal; what was running goes on at the next start."""
        await self.queue.close()
        self._teller.close()
        await in_thread(self.history.close)
        await in_thread(self.journal.close)

    # -- seeing ----------------------------------------

    async def get(self, job_id: str) -> Download:
        """One job. Raises DownloadNotFound."""
        [download] = await self.shown([await self._job(job_id)])
        return download

    async def members(self, group_id: str) -> list[Job]:
        """The jobs of a group, in their order. Raises DownloadNotFound."""
        jobs = await in_thread(self.journal.group, group_id) if self.journal.exists else []
        if not jobs:
            raise DownloadNotFound(f"there is no group of downloads {group_id!r}", id=group_id)
        return jobs

    async def all(self, states: Sequence[JobState], limit: int) -> list[Download]:
        """The newest `limit` jobs in one of `states` (empty: any), oldest first."""
        if not self.journal.exists:
            return []
        return await self.shown(await in_thread(self.journal.jobs, states, limit=limit))

    async def shown(self, jobs: Sequence[Job]) -> list[Download]:
        """Jobs as callers see them, with the piece maps of those that do not run."""
        at_rest = [
            job for job in jobs if job.id not in self.queue.runs.all and (job.state != "completed" or len(jobs) == 1)
        ]
        maps = await in_thread(piece_maps, at_rest, self.journal) if at_rest else {}
        for job_id, map_ in maps.items():
            last = self._statuses.get(job_id)
            maps[job_id] = replace(map_, sources=last.sources) if last is not None else map_
        return [self.show(job, maps.get(job.id)) for job in jobs]

    def show(self, job: Job, status: Status | None = None) -> Download:
        """A job as callers see it, with what its run tells when there is one here."""
        run = self.queue.runs.all.get(job.id) if job.state in ("running", "verifying") else None
        return show(
            job,
            str(self.store.final(job.destination)),
            status or self._status(job),
            run.meter if run is not None else None,
            self.queue.waiting_for(job),
            self.queue.mover,
        )

    def _status(self, job: Job) -> Status | None:
        run = self.queue.runs.all.get(job.id)
        return run.status if run is not None and run.status is not None else self._statuses.get(job.id)

    def change(self, id_: str) -> anyio.Event:
        """Set at the next change of a job or of a group that this generation sees. Take it before looking."""
        return self._changes.setdefault(id_, anyio.Event())

    async def verify(
        self, job_id: str, repair: bool, stopped: Callable[[], bool], progress: Callable[[int, int], None]
    ) -> Verification:
        """Check a complete file, and with `repair` have what is wrong fetched again.

        Raises DownloadNotFound, DownloadConflict, StorageError.
        """
        from .checking import verify
        from .groups import make_unusable

        job = await self._job(job_id)
        result = await anyio.to_thread.run_sync(
            partial(verify, job, self.journal, self.store, self.queue.settings, repair, stopped, progress),
            abandon_on_cancel=True,
        )
        for changed in await in_thread(self.journal.holders, job.sha256 or job.actual, job.partial):
            self._tell(changed)
            if changed.group and changed.state != "completed":
                for member in await in_thread(make_unusable, changed.group, self.journal):
                    self._tell(member)
        self.queue.wake()
        return result

    # -- adding ----------------------------------------

    async def add(self, jobs: Sequence[Job]) -> list[Job]:
        """Queue a job, or those of a group; or take up what there is for the same file or the same group, with what is
        new in the request: an address, a hash, a priority.

        Raises DownloadConflict, DiskFull, DownloadRefused, StorageError.
        """
        reserve = reserve_of(self.queue.settings.reserve_bytes, await in_thread(self.store.capacity))
        found = await in_thread(find_same, jobs, self.journal, self.store, reserve)
        if not found:
            for job in jobs:
                await self._others.admit(job)
            # Looked at again: another call for the same may have been faster while the votes came in.
            found = await in_thread(insert, jobs, self.journal, self.store, reserve)
        if not found:
            self.queue.runs.admitted.update(job.id for job in jobs)
            for job in jobs:
                self._tell(job)
            self.queue.wake()
            return list(jobs)
        resting = []
        for job, asked in paired(found, jobs):
            if asked.sha256 and not job.sha256:
                await self._told_hash(job, asked)
            changes = news(job, asked)
            if changes and (after := await in_thread(self.journal.update, job.id, None, **changes)) is not None:
                self._tell(after)
                self.queue.configured(after)
            if job.state in ("paused", "failed") or (job.state == "waiting" and "url" in changes):
                resting.append(await self._job(job.id))
        if resting:
            await self._resume(resting)
        return [await self._job(job.id) for job in found]

    async def _told_hash(self, job: Job, wanted: Job) -> None:
        """A job whose SHA-256 was not known, now that somebody knows it: from here on it is checked against that.

        Raises DownloadConflict when the file is complete meanwhile, and another one.
        """
        known: dict[str, Any] = {"sha256": wanted.sha256, "size": job.size or wanted.size}
        async with self.queue.halted([job.id]):
            job = await self._job(job.id)
            if job.state in ("running", "verifying"):
                known["state"] = "queued"
            await self._intervene([job], (*LIVE, "failed"), **known)
            job = await self._job(job.id)
        if job.state == "completed":
            if job.actual != wanted.sha256:
                raise taken(job.destination)
            await self._intervene([job], ("completed",), verified=True, **known)

    # -- changing: each takes the id of a job or of a group, and returns the jobs that were meant, as they are then

    async def pause(self, id_: str) -> list[Job]:
        """Stop and keep what there is. Raises DownloadNotFound, DownloadConflict when everything has ended."""
        jobs = await self._meant(id_, LIVE, "only one under way can be paused")
        async with self.queue.halted([job.id for job in jobs]):
            await self._intervene(jobs, tuple(s for s in LIVE if s != "paused"), state="paused")
        return await self._again(id_)

    async def resume(self, id_: str) -> list[Job]:
        """Queue what was paused, failed or waits. Raises DownloadNotFound, DownloadConflict, DownloadRefused."""
        await self._resume(await self._meant(id_, (*LIVE, "failed"), "start it anew"))
        return await self._again(id_)

    async def cancel(self, id_: str) -> list[Job]:
        """Give up; what there is of it is kept for a while. Raises DownloadNotFound, DownloadConflict when complete."""
        jobs = await self._meant(id_, (*LIVE, "failed", "cancelled"), "there is nothing to cancel")
        async with self.queue.halted([job.id for job in jobs]):
            after = await self._intervene(jobs, (*LIVE, "failed"), state="cancelled", retry_at=0.0)
        if not self.queue.settings.keep_partial_days:
            for job in await in_thread(self._discard, after):
                self._tell(job)
        return await self._again(id_)

    async def configure(self, id_: str, **changes: Any) -> list[Job]:
        """Change fields that say how a job is treated. Raises DownloadNotFound, DownloadConflict when it has ended."""
        for job in await self._meant(id_, (*LIVE, "failed"), "nothing of it can be changed"):
            after = await in_thread(self.journal.update, job.id, None, **changes)
            if after is not None:
                self._tell(after)
                self.queue.configured(after)
        return await self._again(id_)

    async def remove(self, id_: str, keep_file: bool) -> Removed:
        """Forget a job or a group, and free what only it had. Raises DownloadNotFound, OSError."""
        from .storage.removal import remove

        jobs = await self._both(id_)
        freed = 0
        async with self.queue.halted([job.id for job in jobs]):
            await self._intervene(jobs, LIVE, state="cancelled")
            for job in jobs:
                count = await in_thread(remove, job.id, self.journal, self.store, keep_file=keep_file)
                freed += count
                self._statuses.pop(job.id, None)
                self._teller.forget(job.id)
                self._ctx.emit("downloads.removed", msgspec.to_builtins(Removed(job.id, count)), key=job.id)
                self._changes.pop(job.id, anyio.Event()).set()
        return Removed(id_, freed)

    async def _resume(self, jobs: Sequence[Job]) -> None:
        again: tuple[JobState, ...] = ("paused", "failed", "waiting", "offline", "blocked_disk")
        for job in jobs:
            if job.state in again:
                await self._others.admit(job)
                self.queue.runs.admitted.add(job.id)
        await self._intervene(jobs, again, state="queued", attempts=0, retry_at=0.0, **NO_ERROR)

    def _discard(self, jobs: Sequence[Job]) -> list[Job]:
        """Remove what cancelled jobs had, unless another one goes on with it; and what is complete of their group."""
        from .groups import let_go

        for job in jobs:
            if not any(other.state in (*LIVE, "failed") for other in self.journal.holders(job.sha256, job.partial)):
                self.journal.forget_pieces(job.id)
                self.journal.update(job.id, job.run, offset=0)
                self.store.discard(job.partial)
        return let_go(self.journal, self.store, 0.0) if jobs and jobs[0].group else []

    async def _job(self, job_id: str) -> Job:
        job = await in_thread(self.journal.get, job_id) if self.journal.exists else None
        if job is None:
            raise DownloadNotFound(f"there is no download {job_id!r}", id=job_id)
        return job

    async def _both(self, id_: str) -> list[Job]:
        return await self.members(id_) if id_.startswith("dg-") else [await self._job(id_)]

    async def _again(self, id_: str) -> list[Job]:
        return await self._both(id_)

    async def _meant(self, id_: str, states: tuple[JobState, ...], otherwise: str) -> list[Job]:
        """The jobs that an id means and that are in one of `states`. Raises DownloadConflict when none is."""
        jobs = await self._both(id_)
        if meant := [job for job in jobs if job.state in states]:
            return meant
        raise DownloadConflict(f"the download is {jobs[0].state}; {otherwise}", id=id_, state=jobs[0].state)

    async def _intervene(self, jobs: Sequence[Job], states: tuple[JobState, ...], **changes: Any) -> list[Job]:
        """Change jobs from outside, those that are in one of `states`; a run that still knows the old state can no
        longer touch them. Returns the changed ones."""
        changed = []
        for job in jobs:
            now: Job | None = job
            while now is not None and now.state in states:
                after = await in_thread(self.journal.update, now.id, now.run, run=now.run + 1, **changes)
                if after is not None:
                    self._tell(after)
                    changed.append(after)
                    break
                now = await in_thread(self.journal.get, job.id)
        self.queue.wake()
        return changed

    def _tell(self, job: Job) -> None:
        run = self.queue.runs.all.get(job.id)
        if run is not None and run.status is not None:
            self._statuses[job.id] = run.status
        if job.state in ENDED:
            self._statuses.pop(job.id, None)
        download = self.show(job)
        self.history.observe(download)
        self._teller.tell(job.id, download)
        for id_ in filter(None, (job.id, job.group)):
            self._changes.pop(id_, anyio.Event()).set()

    def _emit(self, download: Download) -> None:
        self._ctx.emit("downloads.changed", msgspec.to_builtins(download), key=download.id)
