"""The extension: its hooks, and what its parts are told of each other. No network, no database, until they are needed.

The methods are in `list_methods.py` (the list itself), `hubs/methods.py`, `rollout/`, `experiments/` and `publish/`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from jan_core import Context, Event, hookimpl, methods_of
from jan_core.types import (
    Admission,
    DownloadFile,
    DownloadJob,
    DownloadSource,
    InferenceOutcome,
    InferenceRequest,
    ModelContext,
    ModelLoad,
    ModelRecord,
    ModelSource,
)

from .experiments.methods import ExperimentMethods
from .hubs.methods import HubMethods
from .list_methods import ListMethods
from .publish.methods import OperatorMethods
from .rollout.methods import RolloutMethods
from .rollout.phase_methods import PhaseMethods, PhaseServices
from .settings import RegistrySettings

if TYPE_CHECKING:
    from .services import Services

__all__ = ["RegistryExtension"]


class RegistryExtension:
    """`registry.*`: which models there are."""

    _services: Services

    def __init__(self) -> None:
        self._list, self._hubs, self._phases = ListMethods(), HubMethods(), PhaseMethods()
        self._experiments, self._rollout = ExperimentMethods(), RolloutMethods()
        self._operator = OperatorMethods(lambda: list(self._hubs.known().values()), self._hubs.open)

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        # Imported here: what the methods' types do not need, a client is not kept waiting for.
        from .rollout.gates import judge
        from .services import Services

        self._services = Services(ctx)
        self._hubs.start(ctx, self._services.local, self._services.admit)
        self._list.start(self._services, self._hubs)
        services, serving, rollout = self._services, self._services.serving, self._services.featuring.rollout
        self._phases.phase_services = PhaseServices(
            keeper=serving.keeper,
            flags=serving.flags,
            ready=serving.served,
            listed=services.listed,
            criteria=lambda effective: judge(rollout.inputs(time.time())).criteria,
            clock=time.time,
        )
        self._rollout.rollout, self._rollout.phase_services = rollout, self._phases.phase_services
        self._experiments.experiments = services.experiments
        self._services.start()

    @hookimpl
    async def jan_deactivate(self, ctx: Context) -> None:
        await self._services.close()

    @hookimpl
    def jan_settings(self) -> type[RegistrySettings]:
        return RegistrySettings

    @hookimpl
    def jan_methods(self) -> list[Any]:
        return methods_of(self._list, self._hubs, self._phases, self._rollout, self._experiments, self._operator)

    @hookimpl(tryfirst=True)  # of two models with one id the first counts, and that is ours
    async def jan_builtin_models(self) -> list[ModelRecord]:
        # Imported here: in the phase `dynamic` this is never called, and the constants are not even in memory.
        from .builtin import builtin_models

        return builtin_models()

    @hookimpl
    def jan_model_sources(self) -> list[ModelSource]:
        return self._hubs.named()

    @hookimpl(tryfirst=True)  # whoever knows better has the last word
    async def jan_filter_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return await self._services.allowed(models, self._services.serving.context(context))

    @hookimpl(tryfirst=True)
    async def jan_rank_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return await self._services.ranked(models, self._services.serving.context(context))

    @hookimpl
    async def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
        listing = await self._services.catalogue.dynamic()
        if listing is None or not file.sha256:
            return []
        return await anyio.to_thread.run_sync(listing.sources, file.sha256.lower())

    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Admission | None:
        from .revocations import admit_download

        guard = await self._services.guard()
        return await anyio.to_thread.run_sync(admit_download, job, guard.revocations, guard.find)

    @hookimpl
    async def jan_admit_load(self, load: ModelLoad) -> Admission | None:
        from .revocations import admit_load

        guard = await self._services.guard()
        return await anyio.to_thread.run_sync(admit_load, load, guard.revocations, guard.find)

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        if event.name == "settings.changed" and data.get("extension") == self._services.ctx.id:
            await self._services.changed()
        await self._services.watch.event(event)

    @hookimpl
    async def jan_after_inference(self, request: InferenceRequest, outcome: InferenceOutcome) -> None:
        await self._services.watch.after_inference(outcome)
