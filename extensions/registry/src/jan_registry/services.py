"""The parts of one generation, and what each is told of the others. It answers nobody itself."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from jan_core import Context, JanError, RpcError, StorageError
from jan_core.types import DownloadFile, DownloadJob, Evidence, ModelContext, ModelRecord

from .catalogue import Catalogue
from .experiments.service import Experiments, Situation
from .experiments.watching import Watch
from .featuring import Featuring
from .flags.known import EXPERIMENTS, REFRESH
from .guard import Guard
from .listing import BuiltinListing, SignedListing
from .local import open_local
from .refresh import Refresher
from .serving import PATIENCE, Serving

if TYPE_CHECKING:
    from .signed.report import SyncReport

__all__ = ["SETTLE", "Services"]

_ENGINES_AGAIN = 30.0
"""Seconds until an extension that does not say in time which engines there are is asked again."""
SETTLE = 5.0
"""Seconds after the start before anything is done that nobody waits for: what is asked first is answered first."""


class Services:
    """Made when the extension is activated; `close` ends it."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self._engines_known: dict[str, str] = {}
        self._engines_again, self._asking = 0.0, anyio.Lock()
        self.local = open_local(ctx.data_dir)
        self.catalogue = Catalogue(ctx)
        self.serving = Serving(ctx, self.catalogue, self.local)
        self.experiments = Experiments(ctx, self.local, self._situation)
        self.watch = Watch(ctx, self.experiments.used, self._models_with)
        self.featuring = Featuring(ctx, self.catalogue, self.serving, self.experiments, self.local)
        self.refresher = Refresher(ctx, self.catalogue, self.admit, self._synced, self._interval)

    def start(self) -> None:
        self.ctx.tasks.start_soon(self.refresher.serve, SETTLE, name="registry")
        self.ctx.tasks.start_soon(self._verify, name="registry check")
        self.ctx.tasks.start_soon(self.featuring.rollout.serve, name="registry roll-out")

    async def close(self) -> None:
        await self.featuring.rollout.flush()
        await self.experiments.flush()
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self.serving.flags.close()
        self.catalogue.close()
        self.local.close()

    async def changed(self) -> None:
        """Settings are others now."""
        self.serving.reconsider()
        self.refresher.nudge()
        await self.experiments.reconsider()

    async def admit(self, url: str) -> str:
        """Why the network may not be used for `url` now; "" when it may. Asks those who may veto what is fetched."""
        folder = self.ctx.data_dir
        ballot = DownloadJob("registry", DownloadFile("list", url), str(folder), shutil.disk_usage(folder).free)
        for outcome in (await self.ctx.hooks.admit_download(ballot)).outcomes:
            if outcome.value is not None and not outcome.value.allowed:
                return f"refused by {outcome.extension}: {outcome.value.reason or 'no reason given'}"
        return ""

    async def allowed(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        """Those of the models that are meant for whom `context` describes, and that nobody has revoked."""
        from .ranking import filtered

        revocations = (await self.guard()).revocations
        wanted = any("engine" in model.extra.get("requires", {}) for model in models)
        engines = await self._engines() if wanted else {}
        return filtered(models, self.serving.facts(context), revocations, engines)

    async def guard(self) -> Guard:
        """What is revoked, whichever list is shown."""

        async def builtin() -> BuiltinListing | None:
            phase = (await self.serving.effective()).phase
            return await self.catalogue.builtin() if phase != "dynamic" else None

        return await self.catalogue.guard(builtin)

    async def ranked(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        """The same models in the order for this machine and person."""
        from .ranking import ranked

        try:
            scores = await anyio.to_thread.run_sync(self.experiments.usage.scores, time.time())
        except StorageError as error:
            self.ctx.log.warning("what is used most is not known: %s", error.message)
            scores = {}
        return ranked(models, context, scores)

    def listed(self) -> bool:
        """Whether there is a list that was verified or shipped."""
        return (self.catalogue.held or self.catalogue.shipped) is not None

    def notes(self) -> list[str]:
        """What had to be repaired, and what should be known."""
        hub = self.catalogue.stored
        stores = [self.local.note]
        if self.catalogue.named_hub is not None:
            stores.append(self.catalogue.named_hub.store.db.note)
        notes = [self.catalogue.note, *stores, *self.serving.flags.notes(time.time())]
        if hub is not None and (state := hub.states.get("revocations")) is not None:
            from .revocations import unconfirmed

            notes.append(unconfirmed(state.checked_at, time.time()))
        for listing in (hub, self.catalogue.shipped):
            notes += _unfit(listing) if listing is not None else []
        return [note for note in dict.fromkeys(notes) if note]

    async def _synced(self, outcome: SyncReport | JanError) -> None:
        """A refresh ended."""
        listing = await self.catalogue.dynamic()
        age = listing.provenance(time.time()).age if listing is not None else None
        before = self.serving.evidence
        self.serving.evidence = Evidence(
            requests=before.requests + 1,
            errors=before.errors + isinstance(outcome, JanError),
            deviations=before.deviations,
            age=age or 0.0,
        )
        self.serving.reconsider()
        self.ctx.tasks.start_soon(self._sweep, name="registry sweep")
        self.featuring.rollout.synced((await self.serving.served()).effective, outcome)

    def _interval(self) -> float:
        """Seconds between refreshes in the background."""
        return cast(int, self.serving.flags.answer(REFRESH, time.time()).value)

    async def _situation(self) -> Situation | None:
        """What experiments depend on; None while no list that could have any is served."""
        served = await self.serving.served()
        listing = served.listing
        if not isinstance(listing, SignedListing) or "flags" not in listing.states:
            return None
        wanted = self.serving.flags.answer(EXPERIMENTS, time.time())
        if not wanted.value and wanted.level != "setting":
            return None  # switched off for now; only a person who does not want to take part leaves for good
        slots = {slot.id for slot in listing.slots}
        return Situation(listing.experiments, slots, self.serving.facts(ModelContext()), bool(wanted.value))

    async def _models_with(self, sha256: str) -> list[str]:
        """The ids of the models in the list that have a file."""
        listing = await self.catalogue.dynamic()
        return await anyio.to_thread.run_sync(listing.models_with, sha256) if listing is not None else []

    async def _engines(self) -> dict[str, str]:
        """The versions of the inference engines that are installed, else could be, by name."""
        async with self._asking:  # of many readers one asks
            if time.monotonic() < self._engines_again:
                return self._engines_known
            listed: dict[str, Any] = {"builds": [], "installed": []}
            with anyio.move_on_after(PATIENCE) as scope, contextlib.suppress(RpcError):
                listed = await self.ctx.call("engines.list")
            if scope.cancelled_caught:
                self._engines_again = time.monotonic() + _ENGINES_AGAIN
                return self._engines_known
            usable = [build for build in listed["builds"] if not build.get("refused")]
            versions = [str(build["version"]) for build in listed["installed"] or usable]
            self._engines_known = {"llamacpp": max(versions, key=_numbers)} if versions else {}
            return self._engines_known

    async def _verify(self) -> None:
        """Look, once and in the background, whether what lies on the disk is still what was signed."""
        await anyio.sleep(SETTLE)
        try:
            dropped = await anyio.to_thread.run_sync(self.catalogue.verify)
        except StorageError as error:
            self.ctx.log.warning("the stored list cannot be checked: %s", error.message)
            return
        except JanError:
            return
        for what in dropped:
            self.ctx.log.warning("%s is not what was signed, and was dropped", what)
        await self._sweep()

    async def _sweep(self) -> None:
        """Look, in the background and once for each state of the list, for models that may not be used."""
        await self.catalogue.dynamic()
        try:
            await anyio.to_thread.run_sync(self.catalogue.sweep)
        except StorageError as error:
            self.ctx.log.warning("the stored list cannot be looked through: %s", error.message)


def _unfit(listing: SignedListing) -> list[str]:
    """What is to be said of records that may not be used."""
    whose = "the shipped list" if listing.origin == "bundle" else "the hub"
    notes = []
    if unfit := dict(listing.unfit):
        (name, id), reason = min(unfit.items())
        notes.append(f"{whose} has records that may not be used: {len(unfit)} passed over; {name} {id}: {reason}")
    if unread := listing.revocations.unread:
        notes.append(f"{whose} has revocations that are not in order: {unread}; this program may be too old for them")
    return notes


def _numbers(version: str) -> list[int]:
    """Versions compare as numbers."""
    return [int(digits) for digits in re.findall(r"\d+", version)]
