"""The extension: its methods and hooks. No network, no database, until they are needed."""

from __future__ import annotations

import time
from typing import Any

import anyio.to_thread

from jan_core import Context, Empty, Event, JanError, hookimpl, method, methods_of
from jan_core.types import ModelRecord

from .catalogue import Catalogue
from .errors import ModelNotFetchable, ModelUnknown, NoRegistry, RegistryRefused, RegistryUnreachable
from .listing import Listing
from .refresh import Refresher
from .settings import RegistrySettings
from .shapes import (
    FeaturedQuery,
    ModelAnswer,
    ModelId,
    ModelList,
    RefreshReport,
    RegistryChanged,
    RegistryStatus,
    SearchQuery,
    rfc3339,
)

__all__ = ["RegistryExtension"]


class RegistryExtension:
    """`registry.*`: which models there are."""

    _ctx: Context
    _catalogue: Catalogue
    _refresher: Refresher

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        self._ctx = ctx
        self._catalogue = Catalogue(ctx)
        self._refresher = Refresher(
            ctx, self._catalogue, lambda outcome: None, lambda: float(self._catalogue.settings.refresh_seconds)
        )
        ctx.tasks.start_soon(self._refresher.serve, name="registry")

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await anyio.to_thread.run_sync(self._catalogue.close)

    @hookimpl
    def jan_settings(self) -> type[RegistrySettings]:
        return RegistrySettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @hookimpl(tryfirst=True)  # of two models with one id the first counts, and that is ours
    async def jan_builtin_models(self) -> list[ModelRecord]:
        # Imported here: in the phase `dynamic` this is never called, and the constants are not even in memory.
        from .builtin import builtin_models

        return builtin_models()

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        if (
            event.name == "settings.changed"
            and isinstance(event.data, dict)
            and event.data.get("extension") == self._ctx.id
        ):
            self._refresher.nudge()

    @method("registry.featured")
    async def featured(self, params: FeaturedQuery) -> ModelList:
        """Recommended models, filtered and ranked by the extensions for the given context, best first."""
        listing = await self._served()
        hooks, now = self._ctx.hooks, time.time()
        models = await hooks.filter_models(listing.featured({}), params.context)
        models = await hooks.rank_models(models, params.context)
        return ModelList(
            models[: params.limit], len(models), listing.provenance(now), listing.verification(now, "featured")
        )

    @method("registry.search")
    async def search(self, params: SearchQuery) -> ModelList:
        """Models by words in their id, name, publisher or tags."""
        listing, now = await self._served(), time.time()
        found, total = await anyio.to_thread.run_sync(listing.search, params.text, params.limit, params.offset)
        return ModelList(found, total, listing.provenance(now), listing.verification(now))

    @method("registry.get", errors=[ModelUnknown])
    async def get(self, params: ModelId) -> ModelAnswer:
        """One model."""
        listing, now = await self._served(), time.time()
        model = await anyio.to_thread.run_sync(listing.get, params.id)
        if model is None:
            raise ModelUnknown(f"no model {params.id!r} is known", id=params.id)
        return ModelAnswer(model, listing.provenance(now), listing.verification(now))

    @method("registry.refresh", errors=[NoRegistry, RegistryUnreachable, RegistryRefused])
    async def refresh(self, params: Empty) -> RefreshReport:
        """Ask the hub for its list now."""
        return await self._refresher.refresh()

    @method("registry.status", events={"registry.changed": RegistryChanged})
    async def status(self, params: Empty) -> RegistryStatus:
        """Where the list comes from, who vouches for it, how old it is, and what went wrong."""
        listing, now = await self._served(), time.time()
        return RegistryStatus(
            phase="fallback",
            url=self._catalogue.settings.url,
            models=listing.count(),
            provenance=listing.provenance(now),
            verification=listing.verification(now),
            refreshing=self._refresher.busy,
            next_refresh_at=rfc3339(self._refresher.next_at()),
            failures=self._refresher.failures,
            error=self._refresher.error.message if isinstance(self._refresher.error, JanError) else "",
            notes=[self._catalogue.note] if self._catalogue.note else [],
        )

    async def _served(self) -> Listing:
        self._refresher.read()
        return await self._catalogue.dynamic() or await self._catalogue.builtin()


_ = ModelNotFetchable
