"""The extension: its methods and hooks. No network, no database, until they are needed."""

from __future__ import annotations

from typing import Any

import anyio.to_thread

from jan_core import Context, Empty, Event, hookimpl, method, methods_of
from jan_core.types import ModelRecord

from .builtin import builtin_models
from .catalogue import Catalogue, Listing
from .errors import ModelNotFetchable, ModelUnknown, NoRegistry, RegistryInvalid, RegistryUnreachable
from .phase import current_phase
from .refresh import Refresher
from .search import search
from .settings import RegistrySettings
from .shapes import (
    FeaturedQuery,
    ModelAnswer,
    ModelId,
    ModelList,
    PhaseAnswer,
    RefreshReport,
    RegistryChanged,
    RegistryStatus,
    Resolution,
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
        self._refresher = Refresher(ctx, self._catalogue)
        ctx.tasks.start_soon(self._refresher.serve, name="registry")

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await anyio.to_thread.run_sync(self._catalogue.cache.close)

    @hookimpl
    def jan_settings(self) -> type[RegistrySettings]:
        return RegistrySettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self)

    @hookimpl(tryfirst=True)  # of two models with one id the first counts, and that is ours
    async def jan_builtin_models(self) -> list[ModelRecord]:
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
        listing = await self._read()
        hooks = self._ctx.hooks
        models = await hooks.filter_models([m for m in listing.models if m.featured], params.context)
        models = await hooks.rank_models(models, params.context)
        return ModelList(models[: params.limit], len(models), listing.provenance())

    @method("registry.search")
    async def search(self, params: SearchQuery) -> ModelList:
        """Models by words in their id, name, publisher or tags."""
        listing = await self._read()
        found = search(listing.models, params.text)
        return ModelList(found[params.offset : params.offset + params.limit], len(found), listing.provenance())

    @method("registry.get", errors=[ModelUnknown])
    async def get(self, params: ModelId) -> ModelAnswer:
        """One model. One that the current list lacks is looked for in the built-in list too."""
        listing, model = await self._find(params.id)
        return ModelAnswer(model, listing.provenance())

    @method("registry.resolve", errors=[ModelUnknown, ModelNotFetchable])
    async def resolve(self, params: ModelId) -> Resolution:
        """The files to download to have a model, ready for `downloads.start`."""
        listing, model = await self._find(params.id)
        if not model.files or not all(file.url or file.sha256 for file in model.files):
            reason = "it is part of the program" if model.extra.get("embedded") is True else "its list names no URL"
            raise ModelNotFetchable(f"{model.id} cannot be downloaded: {reason}", id=model.id)
        return Resolution(model.id, model.files, all(file.sha256 for file in model.files), listing.provenance())

    @method("registry.refresh", errors=[NoRegistry, RegistryUnreachable, RegistryInvalid])
    async def refresh(self, params: Empty) -> RefreshReport:
        """Ask the source for its list now. The only method that uses the network."""
        return await self._refresher.refresh()

    @method("registry.status", events={"registry.changed": RegistryChanged})
    async def status(self, params: Empty) -> RegistryStatus:
        """Where the list comes from, how old it is, when it is fetched next, and what went wrong."""
        listing = await self._read()
        settings, refresher = self._catalogue.settings, self._refresher
        planned = settings.url and settings.refresh_seconds
        return RegistryStatus(
            phase=(await self._phase()).phase,
            url=settings.url,
            models=len(listing.models),
            provenance=listing.provenance(),
            refreshing=refresher.busy,
            checked_at=rfc3339(listing.checked_at),
            next_refresh_at=rfc3339(refresher.next_at) if planned else "",
            failures=refresher.failures,
            error=refresher.error.message if refresher.error else "",
            skipped=listing.skipped,
            cache_note=self._catalogue.cache.note or self._catalogue.note,
        )

    @method("registry.phase")
    async def phase(self, params: Empty) -> PhaseAnswer:
        """The phase of the roll-out that is served, and why."""
        return await self._phase()

    async def _phase(self) -> PhaseAnswer:
        return await current_phase(self._ctx, self._catalogue, self._refresher)

    async def _read(self) -> Listing:
        self._refresher.nudge()  # a machine that slept past the due time: whoever reads next wakes the refresher
        return await self._catalogue.served()

    async def _find(self, model_id: str) -> tuple[Listing, ModelRecord]:
        for listing in (await self._read(), await self._catalogue.builtin()):
            model = listing.get(model_id)
            if model is not None:
                return listing, model
        raise ModelUnknown(f"no model {model_id!r} is known", id=model_id)
