"""The extension `llamacpp`: local inference for the house. Hooks and wiring only; see `services.py` for the
parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jan_core import Context, Event, Method, hookimpl, methods_of
from jan_core.types import (
    Admission,
    BuildChoice,
    DownloadJob,
    EngineBuild,
    Hardware,
    InferenceEngine,
    InferenceRequest,
    Route,
)

from .remote.remote import engine_of
from .settings import LlamaCppSettings

if TYPE_CHECKING:
    from .services import Services

__all__ = ["LlamaCppExtension"]


class LlamaCppExtension:
    """Serves `engines.*`, `models.*`, `chat.complete`, `completions.create`, `embeddings.create`, `remotes.*` and
    `tokens.count`.

    Emits `models.changed` `{id, state, error}`, `engines.changed` `{id, installed}` and
    `remotes.asked` `{remote, origin, model, thread_id, local}`.
    """

    def __init__(self) -> None:
        from .embedding_methods import EmbeddingMethods
        from .engine_methods import EngineMethods
        from .inference import InferenceMethods
        from .model_methods import ModelMethods
        from .remote.methods import RemoteMethods

        self._handlers = (EngineMethods(), ModelMethods(), InferenceMethods(), EmbeddingMethods(), RemoteMethods())
        self._services: Services

    @hookimpl
    async def jan_activate(self, ctx: Context) -> None:
        from .services import Services

        self._services = Services(ctx)
        for handler in self._handlers:
            handler.services = self._services
        self._services.drop_unwanted_states()  # they were given up while this was not running, perhaps

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(*self._handlers)

    @hookimpl
    def jan_settings(self) -> type[LlamaCppSettings]:
        return LlamaCppSettings

    @hookimpl
    async def jan_event(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        ours = data.get("extension") == self._services.ctx.id
        if event.name == "threads.erased" and (thread := data.get("thread_id")):
            self._services.forget_thread(thread)
        if event.name == "engines.changed" or (event.name == "settings.changed" and ours):
            self._services.reconsider()

    @hookimpl
    def jan_engine_builds(self, hardware: Hardware) -> list[EngineBuild]:
        from .engines.builds import known_builds

        return known_builds(hardware, base=self._services.settings.wheel_index)

    @hookimpl(trylast=True)
    def jan_select_engine_build(self, hardware: Hardware, builds: list[EngineBuild]) -> BuildChoice | None:
        from .engines.builds import choose

        return choose(builds)

    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Admission | None:
        offline = self._services.settings.policy == "offline"
        return Admission(False, "offline mode is on (setting llamacpp.routing)") if offline else None

    @hookimpl
    async def jan_inference_engines(self) -> list[InferenceEngine]:
        from .routing import ENGINE_ID

        remotes = [engine_of(remote) for remote in self._services.settings.remotes]
        return [InferenceEngine(ENGINE_ID, "local", "chat.complete"), *remotes]

    @hookimpl(trylast=True)
    async def jan_route_inference(self, request: InferenceRequest, candidates: list[InferenceEngine]) -> Route | None:
        return await self._services.router.prefer(request, candidates)
