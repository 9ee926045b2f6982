"""When the hub is asked: on request, and now and then in the background. One question at a time, and never in the way
of whoever reads."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from jan_core import Context, JanError, StorageError

from .catalogue import Catalogue
from .errors import NoRegistry, RegistryRefused, RegistryUnreachable
from .hub import Hub, prune
from .listing import Nothing, SignedListing
from .shapes import RefreshReport

if TYPE_CHECKING:
    from .signed.sync import SyncReport

__all__ = ["Refresher"]

_BACKOFF = (60.0, 300.0, 900.0, 3600.0, 14400.0)
_SHORTEST = 60.0
_WATCHED = 900.0
"""Seconds between refreshes while somebody looks at the list, and how long a look lasts."""

Observer = Callable[["SyncReport | JanError"], Awaitable[None]]
Admit = Callable[[str], Awaitable[str]]


class _Flight:
    """One refresh, whoever waits for it."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.done = anyio.Event()
        self.report: RefreshReport | None = None
        self.error: JanError | None = None


class Refresher:
    """Refreshes a catalogue. `admit` says why an address may not be asked now, or ""; `observe` is told how each
    refresh went; `interval` names the seconds between two in the background, 0: none."""

    def __init__(
        self, ctx: Context, catalogue: Catalogue, admit: Admit, observe: Observer, interval: Callable[[], float]
    ) -> None:
        self.failures = 0
        self.error: JanError | None = None
        self._ctx, self._catalogue = ctx, catalogue
        self._admit, self._observe, self._interval = admit, observe, interval
        self._flight: _Flight | None = None
        self._wake = anyio.Event()
        self._asked_at = self._retry_at = self._read_at = self._not_before = 0.0
        self._spread = random.uniform(0.8, 1.2)

    @property
    def busy(self) -> bool:
        return self._flight is not None

    def next_at(self) -> float:
        """When the hub is asked next, in seconds since the epoch; 0 for not at all."""
        seconds = self._interval()
        if not seconds:
            return 0.0
        if self._retry_at:
            return self._retry_at
        if time.time() - self._read_at < _WATCHED:
            seconds = min(seconds, _WATCHED)
        return max(self._asked_at + max(_SHORTEST, seconds) * self._spread, self._not_before)

    async def refresh(self) -> RefreshReport:
        """Ask the hub now, or wait for the answer to a question that is under way.

        A caller that leaves does not stop it. Raises NoRegistry, RegistryUnreachable, RegistryRefused, StorageError.
        """
        hub = self._catalogue.hub
        if hub is None:
            raise NoRegistry("no hub is named: set registry.url to have its list")
        if self._flight is None or self._flight.hub is not hub:
            self._flight = _Flight(hub)
            self._ctx.tasks.start_soon(self._fly, self._flight, name="registry refresh")
        flight = self._flight
        await flight.done.wait()
        if flight.error is not None:
            raise type(flight.error)(flight.error.message, **flight.error.data)
        assert flight.report is not None
        return flight.report

    def read(self) -> None:
        """Somebody reads the list: it is kept fresher for a while."""
        watched = time.time() - self._read_at < _WATCHED
        self._read_at = time.time()
        if not watched or time.time() >= self.next_at():
            self._wake.set()

    def nudge(self) -> None:
        """Settings or flags changed: look whether a refresh is due."""
        self._wake.set()

    async def serve(self, settle: float = 0.0) -> None:
        """Refresh in the background whenever it is due, but not before `settle` seconds are over: a command that only
        reads is over by then, and has used no network. Ends with the generation."""
        self._not_before = time.time() + settle
        hub: Hub | None = None
        while True:
            try:
                named = self._catalogue.hub
            except JanError as error:
                named, self.error = None, error
            if named is not hub:
                hub, self.failures, self._retry_at = named, 0, 0.0
                self.error = None if named is not None else self.error
                self._asked_at = await anyio.to_thread.run_sync(_checked_at, hub) if hub is not None else 0.0
            due = self.next_at() if hub is not None else 0.0
            if due and time.time() >= due:
                try:
                    await self.refresh()
                except JanError as error:
                    self._ctx.log.info("the list could not be refreshed: %s", error.message)
                continue
            with anyio.move_on_after(max(0.0, due - time.time()) if due else None):
                await self._wake.wait()
            if self._wake.is_set():
                self._wake = anyio.Event()

    async def _fly(self, flight: _Flight) -> None:
        try:
            flight.report = await self._ask(flight.hub)
            self.failures, self.error, self._retry_at = 0, None, 0.0
            self._asked_at, self._spread = time.time(), random.uniform(0.8, 1.2)
        except JanError as error:
            await self._failed(flight, error)
        except Exception as error:
            # A defect waits like any failure: whoever asks again at once would never stop asking.
            self._ctx.log.error("defect while refreshing the list", exc_info=error)
            await self._failed(flight, RegistryUnreachable(f"the refresh failed: {type(error).__name__}: {error}"))
        except BaseException:
            flight.error = RegistryUnreachable("the refresh was stopped")
            raise
        finally:
            if self._flight is flight:
                self._flight = None
            flight.done.set()
            self.nudge()

    async def _failed(self, flight: _Flight, error: JanError) -> None:
        flight.error = self.error = error
        pause = _BACKOFF[min(self.failures, len(_BACKOFF) - 1)] * random.uniform(0.8, 1.2)
        self._retry_at = time.time() + max(pause, float(error.data.get("retry_after", 0.0)))
        self.failures += 1
        await self._observe(error)

    async def _ask(self, hub: Hub) -> RefreshReport:
        from .indexing import index
        from .signed.errors import Refused
        from .signed.fetching import TooLarge, Unreachable, fetcher
        from .signed.sync import sync

        if not hub.url.startswith("file:") and (why := await self._admit(hub.url)):
            raise RegistryUnreachable(f"the list is not fetched: {why}")
        try:
            fetch = fetcher(hub.url, lambda: self._ctx.http, timeout=self._catalogue.settings.timeout_seconds)
            found = await anyio.to_thread.run_sync(
                lambda: sync(hub.store, fetch, hub.root, now=time.time, on_models=index, base=self._catalogue.base(hub))
            )
        except Unreachable as error:
            self._changed_partly(hub, error.report)
            raise RegistryUnreachable(str(error), retry_after=error.retry_after, status=error.status) from None
        except TooLarge as error:
            raise RegistryRefused(str(error), kind="too_large") from None
        except Refused as error:
            self._changed_partly(hub, error.report)
            raise RegistryRefused(f"{error}{self._remedy(error.kind)}", kind=error.kind) from None
        self._not_before = time.time() + found.backoff
        await anyio.to_thread.run_sync(self._tidy, hub)
        return await self._report(hub, found)

    def _remedy(self, kind: str) -> str:
        if kind != "forged" or self._catalogue.settings.root:
            return ""
        return (
            "; it is held against the root that was shipped with the program: set registry.root, if this hub has"
            " another"
        )

    def _changed_partly(self, hub: Hub, report: SyncReport | None) -> None:
        """A collection that cannot be had does not keep the others back."""
        if report is not None and report.outcome == "updated":
            self._catalogue.confirmed(hub)

    async def _report(self, hub: Hub, found: SyncReport) -> RefreshReport:
        self._catalogue.confirmed(hub)
        listing = await self._catalogue.dynamic() or SignedListing(Nothing(), {}, "network", hub.url)
        await self._observe(found)
        models = next((c for c in found.collections if c.name == "models"), None)
        counts = {
            "added": models.created if models else 0,
            "removed": models.deleted if models else 0,
            "changed": models.updated if models else 0,
        }
        now = time.time()
        report = RefreshReport(
            outcome=found.outcome,
            models=listing.count(),
            **counts,
            deltas=sum(c.how == "delta" for c in found.collections),
            fulls=sum(c.how == "full" for c in found.collections),
            requests=found.requests,
            bytes=found.bytes,
            duration=round(found.seconds, 6),
            notes=list(found.notes),
            provenance=listing.provenance(now),
            verification=listing.verification(now),
        )
        if found.outcome == "updated":
            self._ctx.emit(
                "registry.changed", {**counts, "models": report.models, "seq": report.provenance.seq}, key="list"
            )
        return report

    def _tidy(self, hub: Hub) -> None:
        try:
            prune(self._ctx.data_dir, hub.store.folder)
        except StorageError as error:
            self._ctx.log.warning("%s", error.message)


def _checked_at(hub: Hub) -> float:
    """When the hub last confirmed its list."""
    try:
        state = hub.store.state("models")
    except StorageError:
        return 0.0
    return float(state.checked_at) if state else 0.0
