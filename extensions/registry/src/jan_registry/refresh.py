"""The one place that uses the network: on request, and now and then in the background when a source is named."""

from __future__ import annotations

import random
import shutil
import time

import anyio
import anyio.to_thread

from jan_core import Context, JanError, StorageError
from jan_core.types import DownloadFile, DownloadJob

from .cache import CachedList
from .catalogue import Catalogue, Listing
from .document import DocumentError, read
from .errors import NoRegistry, RegistryInvalid, RegistryUnreachable
from .shapes import RefreshReport

__all__ = ["Refresher"]

_BACKOFF = (60.0, 300.0, 900.0, 3600.0, 14400.0)
_SHORTEST = 60.0


class _Flight:
    """One refresh, whoever waits for it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.done = anyio.Event()
        self.report: RefreshReport | None = None
        self.error: JanError | None = None


class Refresher:
    """Refreshes a catalogue; at most one refresh is under way."""

    def __init__(self, ctx: Context, catalogue: Catalogue) -> None:
        self.failures = 0
        self.error: JanError | None = None
        self.next_at = 0.0
        self.requests = 0
        self.errors = 0
        self._ctx, self._catalogue = ctx, catalogue
        self._flight: _Flight | None = None
        self._wake = anyio.Event()

    @property
    def busy(self) -> bool:
        return self._flight is not None

    async def refresh(self) -> RefreshReport:
        """Ask the source now, or wait for the answer to a question that is under way.

        A caller that leaves does not stop it. Raises NoRegistry, RegistryUnreachable, RegistryInvalid, StorageError.
        """
        url = self._catalogue.settings.url
        if not url:
            raise NoRegistry("no source of models is named: set registry.url to fetch a list")
        if self._flight is None or self._flight.url != url:
            self._flight = _Flight(url)
            self._ctx.tasks.start_soon(self._fly, self._flight, name="registry refresh")
        flight = self._flight
        await flight.done.wait()
        if flight.error is not None:
            raise type(flight.error)(flight.error.message, **flight.error.data)
        assert flight.report is not None
        return flight.report

    def nudge(self) -> None:
        """Something changed, or somebody reads: look whether a refresh is due."""
        self._wake.set()

    async def serve(self) -> None:
        """Refresh in the background whenever it is due. Ends with the generation."""
        url = ""
        while True:
            settings = self._catalogue.settings
            if settings.url != url:
                url, self.failures, self.error = settings.url, 0, None
                held = await self._catalogue.dynamic(url)
                self._plan(held.checked_at if held is not None else 0.0)
            if url and settings.refresh_seconds and time.time() >= self.next_at:
                try:
                    await self.refresh()
                except JanError as error:
                    self._ctx.log.info("the list could not be refreshed: %s", error.message)
                continue
            idle = not (url and settings.refresh_seconds)
            with anyio.move_on_after(None if idle else max(0.0, self.next_at - time.time())):
                await self._wake.wait()
            if self._wake.is_set():
                self._wake = anyio.Event()

    async def _fly(self, flight: _Flight) -> None:
        self.requests += 1
        try:
            flight.report = await self._ask(flight.url)
            self.failures, self.error = 0, None
            self._plan(time.time())
        except JanError as error:
            self._failed(flight, error)
        except Exception as error:
            # A defect waits like any failure: whoever asks again at once would never stop asking.
            self._ctx.log.error("defect while refreshing the list", exc_info=error)
            self._failed(flight, RegistryUnreachable(f"the refresh failed: {type(error).__name__}: {error}"))
        except BaseException:
            flight.error = RegistryUnreachable("the refresh was stopped")
            raise
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()
            self.nudge()

    def _failed(self, flight: _Flight, error: JanError) -> None:
        flight.error = self.error = error
        self.errors += 1
        pause = _BACKOFF[min(self.failures, len(_BACKOFF) - 1)] * random.uniform(0.8, 1.2)
        self.next_at = time.time() + max(pause, float(error.data.get("retry_after", 0.0)))
        self.failures += 1

    async def _admit(self, url: str) -> None:
        """Ask those who may veto what is fetched. Raises RegistryUnreachable with the first refusal's reason."""
        folder = self._ctx.data_dir
        ballot = DownloadJob("registry", DownloadFile("list", url), str(folder), shutil.disk_usage(folder).free)
        for outcome in (await self._ctx.hooks.admit_download(ballot)).outcomes:
            if outcome.value is not None and not outcome.value.allowed:
                reason = outcome.value.reason or "no reason given"
                raise RegistryUnreachable(f"the list is not fetched: refused by {outcome.extension}: {reason}")

    async def _ask(self, url: str) -> RefreshReport:
        from .source import fetch

        began = time.monotonic()
        await self._admit(url)
        before = await self._catalogue.dynamic(url)
        try:
            client = self._ctx.http
        except RuntimeError as error:
            raise RegistryUnreachable(str(error)) from error
        fetched = await fetch(
            client,
            url,
            etag=before.etag if before else "",
            last_modified=before.last_modified if before else "",
            timeout=self._catalogue.settings.timeout_seconds,
        )
        now = time.time()
        if fetched.body is None:
            if before is None:
                raise RegistryInvalid("the source says that nothing changed, though nothing was fetched before")
            listing = Listing(
                before.models,
                "network",
                url,
                before.digest,
                before.etag,
                before.last_modified,
                before.fetched_at,
                now,
                before.skipped,
            )
            await self._store(lambda: self._catalogue.cache.touch(url, now))
        else:
            try:
                document = await anyio.to_thread.run_sync(read, fetched.body, url)
            except DocumentError as error:
                raise RegistryInvalid(str(error)) from None
            entry = CachedList(url, fetched.body, document.digest, fetched.etag, fetched.last_modified, now, now)
            listing = Listing.of(document, entry, "network")
            await self._store(lambda: self._catalogue.cache.store(entry))
        return self._serve(before, listing, time.monotonic() - began)

    async def _store(self, write: object) -> None:
        """Keep what was fetched for the next start; a disk that fails costs only that."""
        try:
            await anyio.to_thread.run_sync(write)  # type: ignore[arg-type]
        except StorageError as error:
            self._catalogue.note = error.message
            self._ctx.log.warning("%s", error.message)

    def _serve(self, before: Listing | None, listing: Listing, duration: float) -> RefreshReport:
        old = {model.id: model for model in before.models} if before else {}
        new = {model.id: model for model in listing.models}
        changed = sum(1 for id, model in new.items() if id in old and old[id] != model)
        report = RefreshReport(
            outcome="updated" if before is None or before.digest != listing.digest else "unchanged",
            models=len(new),
            added=len(new.keys() - old.keys()),
            removed=len(old.keys() - new.keys()),
            changed=changed,
            skipped=listing.skipped,
            duration=round(duration, 6),
            provenance=listing.provenance(),
        )
        self._catalogue.hold(listing)
        if report.outcome == "updated":
            counts = {"added": report.added, "removed": report.removed, "changed": report.changed}
            self._ctx.emit(
                "registry.changed", {**counts, "models": report.models, "digest": listing.digest}, key="list"
            )
        return report

    def _plan(self, checked_at: float) -> None:
        """The next background refresh: a full interval after the last good answer, give or take a fifth."""
        interval = max(_SHORTEST, float(self._catalogue.settings.refresh_seconds))
        self.next_at = checked_at + interval * random.uniform(0.8, 1.2) if checked_at else 0.0
