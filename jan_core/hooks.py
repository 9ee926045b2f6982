"""The hooks as one calls them: one typed method each, so that a type checker sees every call.

What each hook is for stands in `hookspecs.py`; how implementations are run, in `dispatch.py`.
"""

from __future__ import annotations

from typing import Any

from .dispatch import Broadcast, Dispatcher, Outcome
from .events import Event
from .types import (
    Admission,
    AdoptedFile,
    Assembly,
    Budget,
    BuildChoice,
    DownloadFile,
    DownloadJob,
    DownloadSource,
    EngineBuild,
    Evidence,
    Flags,
    Hardware,
    InferenceEngine,
    InferenceOutcome,
    InferenceRequest,
    Message,
    ModelContext,
    ModelLoad,
    ModelRecord,
    ModelSource,
    PhaseChoice,
    Route,
    Thread,
)

__all__ = ["Broadcast", "Hooks", "Outcome"]


class Hooks:
    """Calls a hook of the whole house. Never raises for what an implementation does: see the outcomes."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    async def event(self, event: Event) -> Broadcast[None]:
        return await self._dispatcher.broadcast("jan_event", event=event)

    async def engine_builds(self, hardware: Hardware) -> Broadcast[list[EngineBuild]]:
        return await self._dispatcher.broadcast("jan_engine_builds", hardware=hardware)

    async def select_engine_build(self, hardware: Hardware, builds: list[EngineBuild]) -> Outcome[BuildChoice] | None:
        return await self._dispatcher.first("jan_select_engine_build", hardware=hardware, builds=builds)

    async def inference_engines(self) -> Broadcast[list[InferenceEngine]]:
        return await self._dispatcher.broadcast("jan_inference_engines")

    async def route_inference(
        self, request: InferenceRequest, candidates: list[InferenceEngine]
    ) -> Outcome[Route] | None:
        return await self._dispatcher.first("jan_route_inference", request=request, candidates=candidates)

    async def before_inference(self, request: InferenceRequest) -> InferenceRequest:
        return await self._dispatcher.pipeline(
            "jan_before_inference", "request", request, until=lambda r: bool(r.refused)
        )

    async def after_inference(self, request: InferenceRequest, outcome: InferenceOutcome) -> Broadcast[None]:
        return await self._dispatcher.broadcast("jan_after_inference", request=request, outcome=outcome)

    async def admit_load(self, load: ModelLoad) -> Broadcast[Admission]:
        return await self._dispatcher.broadcast("jan_admit_load", load=load)

    async def model_sources(self) -> Broadcast[list[ModelSource]]:
        return await self._dispatcher.broadcast("jan_model_sources")

    async def builtin_models(self) -> Broadcast[list[ModelRecord]]:
        return await self._dispatcher.broadcast("jan_builtin_models")

    async def rollout_phase(self, flags: Flags, evidence: Evidence) -> Outcome[PhaseChoice] | None:
        return await self._dispatcher.first("jan_rollout_phase", flags=flags, evidence=evidence)

    async def filter_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return await self._dispatcher.pipeline("jan_filter_models", "models", models, context=context)

    async def rank_models(self, models: list[ModelRecord], context: ModelContext) -> list[ModelRecord]:
        return await self._dispatcher.pipeline("jan_rank_models", "models", models, context=context)

    async def download_sources(self, file: DownloadFile) -> Broadcast[list[DownloadSource]]:
        return await self._dispatcher.broadcast("jan_download_sources", file=file)

    async def adopt_file(self, sha256: str, size: int) -> Outcome[AdoptedFile] | None:
        return await self._dispatcher.first("jan_adopt_file", sha256=sha256, size=size)

    async def admit_download(self, job: DownloadJob) -> Broadcast[Admission]:
        return await self._dispatcher.broadcast("jan_admit_download", job=job)

    async def assemble_context(self, thread: Assembly, budget: Budget) -> Assembly:
        return await self._dispatcher.pipeline("jan_assemble_context", "thread", thread, budget=budget)

    async def message_added(self, thread: Thread, message: Message) -> Broadcast[None]:
        return await self._dispatcher.broadcast("jan_message_added", thread=thread, message=message)

    def timings(self) -> dict[str, Any]:
        """Calls, failures and times by extension and hook."""
        return self._dispatcher.timings()
