"""The extension: its methods and hooks. What they do is in `manager`, which is loaded when there is anything to do."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.from_thread

from jan_core import Call, Context, hookimpl, method, methods_of

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
)
from .history_methods import HistoryMethods
from .settings import DownloadSettings
from .shapes import (
    ConfigureDownload,
    Download,
    DownloadGroup,
    DownloadId,
    DownloadList,
    ListDownloads,
    Removed,
    RemoveDownload,
    StartDownload,
    StartGroup,
    Verification,
    VerifyDownload,
)
from .wanted import changes_asked, group_asked, job_asked

if TYPE_CHECKING:
    from .manager import Downloads
    from .records import Job

__all__ = ["DownloadExtension"]

_LOOK_AGAIN = 5.0
"""Seconds after which it is looked whether another process has begun a download, the first one of this data folder."""

_WAITING = [
    DownloadConflict,
    DownloadRefused,
    DiskFull,
    SourceUnauthorized,
    SourceNotFound,
    HashMismatch,
    BadSource,
    DownloadCancelled,
]


class DownloadExtension:
    """`downloads.*`: files fetched over HTTP(S) from several sources, resumable, checked, journaled."""

    settle = 1.0
    """Seconds before what was interrupted goes on by itself: see `Queue.serve`."""
    _ctx: Context

    def __init__(self) -> None:
        self._loaded: Downloads | None = None
        self._ended = False
        self._history = HistoryMethods()

    @property
    def _downloads(self) -> Downloads:
        """The downloads of the data folder, which run from now on."""
        if self._loaded is None:
            from .manager import Downloads

            self._loaded = Downloads(self._ctx)
            self._ctx.tasks.start_soon(self._loaded.queue.serve, self.settle, name="downloads")
        return self._loaded

    async def _load_when_needed(self) -> None:
        """Go on with what is in the journal. A start without one costs nothing."""
        while self._loaded is None and not (self._ctx.data_dir / "downloads.db").exists():  # noqa: ASYNC110 no event: another process may make it
            await anyio.sleep(_LOOK_AGAIN)
        if not self._ended:
            _ = self._downloads

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self._ctx = ctx
        self._history.start(lambda: self._downloads.history, lambda job_id: self._downloads.get(job_id), self._members)
        ctx.tasks.start_soon(self._load_when_needed, name="download journal")

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        self._ended = True
        if self._loaded is not None:
            await self._loaded.close()

    @hookimpl
    def jan_settings(self) -> type[DownloadSettings]:
        return DownloadSettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self, self._history)

    @method("downloads.start", errors=_WAITING)
    async def start(self, params: StartDownload, call: Call) -> Download:
        """Fetch a file, or take up the download of the same file that there is already.

        Answers as soon as the job is safely in the journal. With `wait` it answers when the job is completed or
        paused, reports progress until then, and fails as the job fails; a caller that leaves does not stop the job.
        The same content that is under way under another name is not fetched again: this job waits for that one.
        """
        from .following import follow

        [job] = await self._downloads.add([job_asked(params)])
        if not params.wait:
            return self._downloads.show(job)
        return await follow(call, partial(self._downloads.change, job.id), partial(self._downloads.get, job.id))

    @method("downloads.start_group", errors=_WAITING)
    async def start_group(self, params: StartGroup, call: Call) -> DownloadGroup:
        """Fetch files that are of use only together, such as the parts of a model and its projector; or take up the
        group of the same files that there is already.

        Small files come first. No file may be used, and none has a `path`, before the last one is complete and
        checked. With `wait` it fails as soon as one of them does; the others go on.
        """
        from .following import follow

        jobs = await self._downloads.add(group_asked(params))
        if not params.wait:
            return await self._group(jobs)
        group_id = jobs[0].group
        return await follow(call, partial(self._downloads.change, group_id), partial(self._look, group_id))

    @method("downloads.group", errors=[DownloadNotFound])
    async def group(self, params: DownloadId) -> DownloadGroup:
        """A group with all its downloads, as they stand."""
        return await self._look(params.id)

    @method("downloads.list", events={"downloads.changed": Download, "downloads.removed": Removed})
    async def list(self, params: ListDownloads) -> DownloadList:
        """All downloads, ended ones too, oldest first."""
        return DownloadList(await self._downloads.all(params.states, params.limit))

    @method("downloads.get", errors=[DownloadNotFound])
    async def get(self, params: DownloadId) -> Download:
        """One download as it stands."""
        return await self._downloads.get(params.id)

    @method("downloads.configure", errors=[DownloadNotFound, DownloadConflict])
    async def configure(self, params: ConfigureDownload) -> DownloadList:
        """Change the priority, the limit or the earliest time of a download, or of each of a group."""

        return await self._shown(await self._downloads.configure(params.id, **changes_asked(params)))

    @method("downloads.pause", errors=[DownloadNotFound, DownloadConflict])
    async def pause(self, params: DownloadId) -> DownloadList:
        """Stop a download, or those of a group, and keep what there is. They stay paused across restarts."""
        return await self._shown(await self._downloads.pause(params.id))

    @method("downloads.resume", errors=[DownloadNotFound, DownloadConflict, DownloadRefused])
    async def resume(self, params: DownloadId) -> DownloadList:
        """Go on with a download, or those of a group, that were paused or failed; try waiting ones now."""
        return await self._shown(await self._downloads.resume(params.id))

    @method("downloads.cancel", errors=[DownloadNotFound, DownloadConflict])
    async def cancel(self, params: DownloadId) -> DownloadList:
        """Give a download up, or those of a group that are not complete.

        What there is of it is kept for `keep_partial_days`: starting the same file again goes on from there.
        """
        return await self._shown(await self._downloads.cancel(params.id))

    @method("downloads.remove", errors=[DownloadNotFound])
    async def remove(self, params: RemoveDownload) -> Removed:
        """Forget a download or a group, and remove what it has on the disk unless another download needs it."""
        return await self._downloads.remove(params.id, params.keep_file)

    @method("downloads.verify", errors=[DownloadNotFound, DownloadConflict])
    async def verify(self, params: VerifyDownload, call: Call) -> Verification:
        """Hash a complete file again and compare.

        A file that does not match is taken away from its name, so that nobody uses it, and the download becomes
        `failed`; `downloads.resume` fetches it anew. With `repair` it is queued at once, and where the hashes of its
        pieces are known only those that are wrong are fetched.
        """
        stopped = threading.Event()

        def progress(done: int, total: int) -> None:
            anyio.from_thread.run_sync(partial(call.progress, "verifying", done=done, total=total))

        try:
            return await self._downloads.verify(params.id, params.repair, stopped.is_set, progress)
        finally:
            stopped.set()

    async def _members(self, group_id: str) -> Sequence[Download]:
        return (await self._look(group_id)).downloads

    async def _look(self, group_id: str) -> DownloadGroup:
        return await self._group(await self._downloads.members(group_id))

    async def _group(self, jobs: Sequence[Job]) -> DownloadGroup:
        from .groups import group_of

        return group_of(jobs[0].group_name, await self._downloads.shown(jobs))

    async def _shown(self, jobs: Sequence[Job]) -> DownloadList:
        return DownloadList(await self._downloads.shown(jobs))
