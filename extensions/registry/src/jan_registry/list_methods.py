"""The methods about the list: what is recommended, found, known and to be had, and how the list stands."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio.to_thread

from jan_core import Empty, method
from jan_core.types import ModelContext, ModelRecord, SourceQuery

from .errors import ModelNotFetchable, ModelRevoked, ModelUnknown, NoRegistry, RegistryRefused, RegistryUnreachable
from .hubs.errors import HubInvalid, HubRefused, HubUnreachable
from .shapes import (
    FeaturedQuery,
    ModelAnswer,
    ModelId,
    ModelList,
    ModelQuery,
    Provenance,
    RefreshReport,
    RegistryChanged,
    RegistryStatus,
    Resolution,
    SearchQuery,
    rfc3339,
)
from .signed.verification import Verification

if TYPE_CHECKING:
    from .hubs.methods import HubMethods
    from .services import Services

__all__ = ["ListMethods"]

HUB_ERRORS = (HubUnreachable, HubRefused, HubInvalid)


class ListMethods:
    """Handlers. `start` comes before any call."""

    _services: Services
    _hubs: HubMethods

    def start(self, services: Services, hubs: HubMethods) -> None:
        self._services, self._hubs = services, hubs

    @method("registry.featured")
    async def featured(self, params: FeaturedQuery) -> ModelList:
        """Recommended models, filtered and ranked by the extensions for the given context, best first."""
        services, now = self._services, time.time()
        services.refresher.read()
        shown = await services.featuring.featured(params.context, params.limit)
        listing = shown.served.listing
        return ModelList(
            shown.models[: params.limit],
            len(shown.models),
            listing.provenance(now),
            listing.verification(now, "featured"),
            experiment=shown.experiment,
            branch=shown.branch,
        )

    @method("registry.search", errors=HUB_ERRORS)
    async def search(self, params: SearchQuery) -> ModelList:
        """Models by words in their id, name, publisher or tags; at another hub, where `source` names one."""
        if params.source:
            query = SourceQuery(params.source, params.text, "", params.cursor, params.limit)
            page = await self._hubs.browse(query)
            return ModelList(
                page.models, len(page.models), *_from(params.source, page.models), cursor=page.cursor
            )  # fmt: skip
        services, now = self._services, time.time()
        services.refresher.read()
        listing = (await services.serving.served()).listing
        found, total = await anyio.to_thread.run_sync(listing.search, params.text, params.limit, params.offset)
        allowed = await services.allowed(found, services.serving.context(ModelContext()))
        total -= len(found) - len(allowed)
        return ModelList(allowed, total, listing.provenance(now), listing.verification(now))

    @method("registry.get", errors=[ModelUnknown, *HUB_ERRORS])
    async def get(self, params: ModelId) -> ModelAnswer:
        """One model, and whether it was revoked; of another hub, where `source` names one."""
        from .revocations import without_revoked

        answer = await self._find(params.id, params.source)
        revocations = (await self._services.guard()).revocations
        if without_revoked(answer.model, revocations) is None:
            files = [*answer.model.files, *(file for variant in answer.model.variants for file in variant.files)]
            hashes = ["", *(file.sha256 for file in files)]
            found = [revocations.refusal(sha256, answer.model.id) for sha256 in hashes]
            answer.revoked = next(each.reason for each in found if each is not None)
        return answer

    @method("registry.resolve", errors=[ModelUnknown, ModelNotFetchable, ModelRevoked, *HUB_ERRORS])
    async def resolve(self, params: ModelQuery) -> Resolution:
        """The files to download to have a model, ready for `downloads.start`; of the first variant that nobody has
        revoked, where none is named."""
        from .revocations import without_revoked

        answer = await self._find(params.id, params.source)
        model = answer.model
        if not params.variant:
            model = without_revoked(model, (await self._services.guard()).revocations) or model
        files, variant = model.files, ""
        if model.variants:
            chosen = next((v for v in model.variants if v.id == (params.variant or model.variants[0].id)), None)
            if chosen is not None:
                files, variant = chosen.files, chosen.id
        if params.variant and not variant:
            known = ", ".join(v.id for v in model.variants) or "none"
            message = f"{model.id} has no variant {params.variant!r}; it has: {known}"
            raise ModelNotFetchable(message, id=model.id)
        await self._refuse_revoked(model, [file.sha256 for file in files])
        if not files or not all(file.url or file.sha256 for file in files):
            reason = "it is part of the program" if model.extra.get("embedded") is True else "its list names no URL"
            raise ModelNotFetchable(f"{model.id} cannot be downloaded: {reason}", id=model.id)
        checkable = all(file.sha256 for file in files)
        return Resolution(model.id, variant, files, checkable, answer.provenance, answer.verification)

    @method("registry.refresh", errors=[NoRegistry, RegistryUnreachable, RegistryRefused])
    async def refresh(self, params: Empty) -> RefreshReport:
        """Ask the hub for its list now."""
        return await self._services.refresher.refresh()

    @method("registry.status", events={"registry.changed": RegistryChanged})
    async def status(self, params: Empty) -> RegistryStatus:
        """Where the list comes from, who vouches for it, how old it is, and what went wrong."""
        services, now = self._services, time.time()
        services.refresher.read()
        served = await services.serving.served()
        listing, refresher = served.listing, services.refresher
        states = getattr(listing, "states", {})
        return RegistryStatus(
            phase=served.effective.phase,
            url=services.catalogue.settings.url,
            models=listing.count(),
            provenance=listing.provenance(now),
            verification=listing.verification(now),
            collections={name: listing.verification(now, name) for name in states},
            refreshing=refresher.busy,
            next_refresh_at=rfc3339(_due(refresher.next_at(), now)) if services.catalogue.named_hub else "",
            failures=refresher.failures,
            error=refresher.error.message if refresher.error else "",
            notes=await anyio.to_thread.run_sync(services.notes),
        )

    async def _find(self, id: str, source: str) -> ModelAnswer:
        if source:
            page = await self._hubs.browse(SourceQuery(source, "", id))
            if not page.models:
                raise ModelUnknown(f"{source} has no model {id!r}", id=id)
            return ModelAnswer(page.models[0], *_from(source, page.models))
        services, now = self._services, time.time()
        services.refresher.read()
        served = await services.serving.served()
        listings = [served.listing]
        if served.effective.phase != "dynamic":
            # What is asked for by name may be known from the other list; one that was found wanting here has no say.
            dynamic = None if served.effective.cooling else await services.catalogue.dynamic()
            listings += [*([dynamic] if dynamic is not None else []), await services.catalogue.builtin()]
        for listing in listings:
            model = await anyio.to_thread.run_sync(listing.get, id)
            if model is not None:
                return ModelAnswer(model, listing.provenance(now), listing.verification(now))
        raise ModelUnknown(f"no model {id!r} is known", id=id)

    async def _refuse_revoked(self, model: ModelRecord, hashes: list[str]) -> None:
        revocations = (await self._services.guard()).revocations
        for sha256 in hashes or [""]:
            found = revocations.refusal(sha256, model.id)
            if found is not None:
                raise ModelRevoked(f"{model.id} was revoked: {found.reason}", id=model.id, reason=found.reason)


def _due(at: float, now: float) -> float:
    """What was due before now is due now; 0: never."""
    return max(at, now) if at else 0.0


def _from(source: str, models: list[ModelRecord]) -> tuple[Provenance, Verification]:
    """Of what another hub answered."""
    verified = bool(models) and all(model.verification == "verified" for model in models)
    return Provenance("source", source=source), Verification("verified" if verified else "unverified")
