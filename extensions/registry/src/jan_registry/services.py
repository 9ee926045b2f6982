"""The parts of one generation, and what each is told of the others. It answers nobody itself."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, cast

import anyio.to_thread

from jan_core import Context, JanError, StorageError
from jan_core.types import DownloadFile, DownloadJob, ModelContext, ModelRecord

from .catalogue import Catalogue
from .featuring import Featuring
from .flags.known import REFRESH
from .local import open_local
from .refresh import Refresher
from .serving import Serving

if TYPE_CHECKING:
    from .signed.report import SyncReport

__all__ = ["Services"]


class Services:
    """Made when the extension is activated; `close` ends it."""

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.local = open_local(ctx.data_dir)
        self.catalogue = Catalogue(ctx)
        self.serving = Serving(ctx, self.catalogue, self.local)
        self.featuring = Featuring(ctx, self.catalogue, self.serving, self.local)
        self.refresher = Refresher(ctx, self.catalogue, self.admit, self._synced, self._interval)

    def start(self) -> None:
        self.ctx.tasks.start_soon(self.refresher.serve, name="registry")
        self.ctx.tasks.start_soon(self._verify, name="registry check")
        self.ctx.tasks.start_soon(self.featuring.rollout.serve, name="registry roll-out")

    async def close(self) -> None:
        await self.featuring.rollout.flush()
        await anyio.to_thread.run_sync(self._close)

    def _close(self) -> None:
        self.serving.flags.close()
        self.catalogue.close()
        self.local.close()

    def changed(self) -> None:
        """Settings are others now."""
        self.serving.reconsider()
        self.refresher.nudge()

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
        from .revocations import without_revoked

        listing = await self.catalogue.dynamic()
        if listing is None:
            return models
        return [kept for model in models if (kept := without_revoked(model, listing.revocations)) is not None]

    def notes(self) -> list[str]:
        """What had to be repaired, and what should be known."""
        hub = self.catalogue.held
        stores = [self.local.note]
        if self.catalogue.named_hub is not None:
            stores.append(self.catalogue.named_hub.store.db.note)
        notes = [self.catalogue.note, *stores, *self.serving.flags.notes(time.time())]
        if hub is not None and (state := hub.states.get("revocations")) is not None:
            from .revocations import unconfirmed

            notes.append(unconfirmed(state.checked_at, time.time()))
        return [note for note in dict.fromkeys(notes) if note]

    async def _synced(self, outcome: SyncReport | JanError) -> None:
        """A refresh ended."""
        self.serving.reconsider()
        self.featuring.rollout.synced((await self.serving.served()).effective, outcome)

    def _interval(self) -> float:
        """Seconds between refreshes in the background."""
        return cast(int, self.serving.flags.answer(REFRESH, time.time()).value)

    async def _verify(self) -> None:
        """Look, once and in the background, whether what lies on the disk is still what was signed."""
        try:
            dropped = await anyio.to_thread.run_sync(self.catalogue.verify)
        except StorageError as error:
            self.ctx.log.warning("the stored list cannot be checked: %s", error.message)
            return
        except JanError:
            return
        for what in dropped:
            self.ctx.log.warning("%s is not what was signed, and was dropped", what)
