"""What other extensions have to say about a download: may it be, who has a copy, where can it be had."""

from __future__ import annotations

from jan_core import Context, JanError
from jan_core.types import AdoptedFile, DownloadJob, DownloadSource

from .errors import DownloadRefused
from .names import check_url
from .records import Job
from .storage.store import Store
from .threads import in_thread

__all__ = ["Others"]


class Others:
    """Asks the hooks `jan_admit_download`, `jan_adopt_file` and `jan_download_sources`."""

    def __init__(self, ctx: Context, store: Store) -> None:
        self._ctx, self._store = ctx, store

    async def admit(self, job: Job) -> None:
        """Ask for votes. Raises DownloadRefused with the first refusal's reason."""
        free = await in_thread(self._store.free)
        destination = str(self._store.final(job.destination))
        ballot = DownloadJob(id=job.id, file=job.file, destination=destination, disk_free=free)
        for outcome in (await self._ctx.hooks.admit_download(ballot)).outcomes:
            if outcome.value is not None and not outcome.value.allowed:
                reason = outcome.value.reason or "no reason given"
                raise DownloadRefused(f"refused by {outcome.extension}: {reason}", extension=outcome.extension)

    async def copies(self, job: Job) -> list[AdoptedFile]:
        """A copy on this machine that an extension knows of; whoever takes it hashes it."""
        outcome = await self._ctx.hooks.adopt_file(job.sha256, job.size)
        return [outcome.value] if outcome is not None and outcome.value is not None else []

    async def sources(self, job: Job) -> list[DownloadSource]:
        """Where the file can be had, best first; its own URL is one of them, with the headers and the priority that
        somebody gives for it. Who names an address first says how it is asked."""
        sources: dict[str, DownloadSource] = {}
        for outcome in (await self._ctx.hooks.download_sources(job.file)).outcomes:
            for source in outcome.value or []:
                try:
                    check_url(source.url, "$.url")
                except JanError as error:
                    self._ctx.log.warning("a source of %s is not used: %s", outcome.extension, error.message)
                else:
                    sources.setdefault(source.url, source)
        own = [sources.pop(job.url, DownloadSource(job.url))] if job.url else []
        return sorted([*own, *sources.values()], key=lambda source: source.priority)
