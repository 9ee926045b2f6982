"""The extension: its methods and hooks. Everything is done by `manager`; modules that cost time load when
first used."""

from __future__ import annotations

import secrets
import threading
import time
from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread

from jan_core import Call, Context, InvalidParams, hookimpl, method, methods_of

from .errors import (
    BadSource,
    DiskFull,
    DownloadCancelled,
    DownloadConflict,
    DownloadNotFound,
    DownloadRefused,
    HashMismatch,
    SourceNotFound,
    SourceUnauthorized,
    error_from,
)
from .manager import Downloads
from .names import check_file, file_name
from .records import Job
from .settings import DownloadSettings
from .shapes import Download, DownloadId, DownloadList, ListDownloads, StartDownload, Verification

__all__ = ["DownloadExtension"]


class DownloadExtension:
    """`downloads.*`: files fetched over HTTP(S), resumable, checked, journaled."""

    _downloads: Downloads

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self._downloads = Downloads(ctx)
        ctx.tasks.start_soon(self._downloads.queue.serve, name="downloads")

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await self._downloads.close()

    @hookimpl
    def jan_settings(self) -> type[DownloadSettings]:
        return DownloadSettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @method(
        "downloads.start",
        errors=[
            DownloadConflict,
            DownloadRefused,
            DiskFull,
            SourceUnauthorized,
            SourceNotFound,
            HashMismatch,
            BadSource,
            DownloadCancelled,
        ],
    )
    async def start(self, params: StartDownload, call: Call) -> Download:
        """Fetch a file, or take up the download of the same file that there is already.

        Answers as soon as the job is safely in the journal. With `wait` it answers when the job is
        completed or paused, reports progress until then, and fails as the job fails; a caller that leaves
        does not stop the job.
        """
        file = check_file(params.file)
        destination = file_name(params.destination or file.name, "$.destination")
        if not (file.url or file.sha256):
            raise InvalidParams("a file needs a url, or a sha256 by which a source can be found", path="$.file.url")
        job_id = f"dl-{secrets.token_hex(8)}"
        job = await self._downloads.add(
            Job(
                id=job_id,
                name=file.name,
                url=file.url,
                sha256=file.sha256,
                size=file.size,
                destination=destination,
                partial=file.sha256 or job_id,
                created_at=time.time(),
                updated_at=time.time(),
            )
        )
        return await self._follow(job.id, call) if params.wait else self._downloads.show(job)

    @method("downloads.list", events={"downloads.changed": Download})
    async def list(self, params: ListDownloads) -> DownloadList:
        """All downloads, ended ones too, oldest first."""
        journal = self._downloads.journal
        if not journal.exists:
            return DownloadList([])
        jobs = await anyio.to_thread.run_sync(partial(journal.jobs, params.states, limit=params.limit))
        return DownloadList([self._downloads.show(job) for job in jobs])

    @method("downloads.get", errors=[DownloadNotFound])
    async def get(self, params: DownloadId) -> Download:
        """One download as it stands."""
        return await self._downloads.get(params.id)

    @method("downloads.pause", errors=[DownloadNotFound, DownloadConflict])
    async def pause(self, params: DownloadId) -> Download:
        """Stop a download and keep what it has. It stays paused across restarts."""
        return self._downloads.show(await self._downloads.pause(params.id))

    @method("downloads.resume", errors=[DownloadNotFound, DownloadConflict, DownloadRefused])
    async def resume(self, params: DownloadId) -> Download:
        """Go on with a download that was paused or failed, or try a waiting one now."""
        return self._downloads.show(await self._downloads.resume(params.id))

    @method("downloads.cancel", errors=[DownloadNotFound, DownloadConflict])
    async def cancel(self, params: DownloadId) -> Download:
        """Give a download up and remove what it has. A complete file is not touched."""
        return self._downloads.show(await self._downloads.cancel(params.id))

    @method("downloads.verify", errors=[DownloadNotFound, DownloadConflict])
    async def verify(self, params: DownloadId, call: Call) -> Verification:
        """Hash a complete file again and compare.

        A file that does not match is taken away from its name, so that nobody uses it, and the download
        becomes `failed`; `downloads.resume` fetches it anew.
        """
        from .verify import verify

        stopped = threading.Event()

        def progress(done: int, total: int) -> None:
            anyio.from_thread.run_sync(partial(call.progress, "verifying", done=done, total=total))

        try:
            result = await anyio.to_thread.run_sync(
                partial(
                    verify,
                    params.id,
                    self._downloads.journal,
                    self._downloads.store,
                    stopped.is_set,
                    progress,
                ),
                abandon_on_cancel=True,
            )
        finally:
            stopped.set()
        await self._downloads.announce(params.id)
        return result

    async def _follow(self, job_id: str, call: Call) -> Download:
        """Wait for the end of a job. Raises the error it fails with."""
        while True:
            change = self._downloads.change(job_id)
            now = await self._downloads.get(job_id)
            call.progress(
                now.error.message if now.error else now.state,
                done=now.bytes_done,
                total=now.bytes_total or None,
            )
            if now.state in ("completed", "paused"):
                return now
            if now.state == "cancelled":
                raise DownloadCancelled("the download was cancelled", id=job_id)
            if now.state == "failed":
                error = now.error
                raise error_from(error.type if error else "", error.message if error else "the download failed")
            with anyio.move_on_after(1.0):
                await change.wait()  # in vain when another process runs the job: it is looked at once a second then
