"""Where a chat request is answered: which engines may be asked at all, and which of them is.

Permission comes first and is nobody's to change: engines that the policy or the request's sensitivity rule out are not
among the candidates that `jan_route_inference` is offered, and a choice outside of them is refused. Preference is the
hook's; `Router.prefer` is the house's own, asked when nobody else chose. How an engine is reached is not known here.
(An extension's engine is local because it says so: Python in this process is not sandboxed.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import anyio.to_thread
import msgspec

from jan_core import JanError
from jan_core.types import ChatRequest, InferenceEngine, InferenceRequest, Route

from .errors import InvalidModelFile, ModelNotFound, NoUsableEngine, RequestRefused
from .failures import EngineBroken, ModelLoadFailed

if TYPE_CHECKING:
    from .remote.remote import Remote
    from .services import Services

__all__ = ["ENGINE_ID", "Routed", "Router", "kept_here"]

ENGINE_ID = "llamacpp"
Sensitivity = Literal["normal", "sensitive"]

_CANNOT_LOAD = {e.type for e in (EngineBroken, InvalidModelFile, ModelLoadFailed, NoUsableEngine)}
_CANNOT_LOAD |= {ModelNotFound.type, "engine_install_failed", "out_of_memory"}


@dataclass(frozen=True, slots=True)
class Routed:
    """The engine that answers, what it calls the model, how sensitive the request is, and why it was chosen."""

    engine: InferenceEngine
    model: str
    sensitivity: Sensitivity
    reason: str

    def chat(self, request: InferenceRequest) -> ChatRequest:
        """The request as the engine gets it."""
        return msgspec.structs.replace(request.chat, model=self.model, sensitivity=self.sensitivity)


def kept_here(policy: str, sensitivity: Sensitivity) -> str:
    """Why nothing of a request may leave this machine, or nothing at all; empty: it may."""
    if sensitivity == "sensitive":
        return "it is sensitive, and stays on this machine"
    if policy == "offline":
        return "offline mode is on"
    if policy == "local-only":
        return "the policy local-only keeps everything on this machine (setting llamacpp.routing)"
    return ""


class Router:
    """Routes requests for one activation of the extension."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def route(self, request: InferenceRequest, sensitivity: Sensitivity) -> Routed:
        """The engine for a request. `sensitivity` is what the caller asked for: hooks may only have raised it.

        Raises RequestRefused.
        """
        if request.chat.sensitivity == "sensitive":
            sensitivity = "sensitive"
        model = request.chat.model or self._services.settings.default_model
        candidates = await self._candidates(model, sensitivity)
        # Copies: what an implementation does to them changes nothing here.
        offered = [msgspec.structs.replace(engine, models=list(engine.models)) for engine in candidates]
        outcome = await self._services.ctx.hooks.route_inference(request, offered)
        if outcome is None or outcome.value is None:
            raise RequestRefused(f"no engine answered for: nobody chose one for {model}")
        for engine in candidates:
            if engine.id == outcome.value.engine:
                return Routed(engine, _name_at(engine, model), sensitivity, outcome.value.reason)
        raise RequestRefused(
            f"{outcome.extension} chose {outcome.value.engine}, which may not answer this request",
            engine=outcome.value.engine,
        )

    async def instead(self, request: InferenceRequest, routed: Routed, failure: JanError) -> Routed | None:
        """Who else may answer, now that the model could not be loaded here; None: nobody."""
        if routed.engine.id != ENGINE_ID or failure.type not in _CANNOT_LOAD:
            return None
        try:
            again = await self.route(request, routed.sensitivity)
        except RequestRefused:
            return None
        return None if again.engine.id == ENGINE_ID else again

    def elsewhere(self, model: str, failure: JanError) -> Remote | None:
        """The remote engine whose model it is that could not be used here; None: it is nobody's."""
        settings = self._services.settings
        if failure.type not in _CANNOT_LOAD:
            return None
        return next((r for r in settings.remotes if r.serves(model or settings.default_model)), None)

    async def prefer(self, request: InferenceRequest, candidates: list[InferenceEngine]) -> Route | None:
        """The house's own choice: this machine where it can answer, else the first other engine that may."""
        model = request.chat.model or self._services.settings.default_model
        here = next((engine for engine in candidates if engine.id == ENGINE_ID), None)
        others = [engine for engine in candidates if engine.id != ENGINE_ID and _lists(engine, model)]
        if here is not None and (not others or await self._can_answer(model)):
            return Route(ENGINE_ID, "it runs on this machine")
        if others:
            reason = (
                f"{model} cannot be used on this machine" if here else f"the request asks for {others[0].id}'s model"
            )
            return Route(others[0].id, reason)
        return None

    async def _candidates(self, model: str, sensitivity: Sensitivity) -> list[InferenceEngine]:
        """The engines that may answer. Raises RequestRefused when the request asks for one that may not."""
        policy = self._services.settings.policy
        engines = [engine for engine in await self._engines() if _name_at(engine, model)]
        asked_for = [engine for engine in engines if engine.id != ENGINE_ID and model.startswith(f"{engine.id}/")]
        if asked_for:  # an id of ours has no slash
            engines = asked_for
        local = [engine for engine in engines if engine.kind == "local"]
        remote = [engine for engine in engines if engine.kind == "remote"]
        if remote and (why := kept_here(policy, sensitivity)):
            if not local:
                raise RequestRefused(f"{model} is not answered on this machine: {why}", engine=remote[0].id)
            return local
        if remote and local and policy == "prefer-local" and await self._can_answer(model):
            return local
        return local + remote

    async def _engines(self) -> list[InferenceEngine]:
        """Every engine there is, one of each id; nobody else's has the id of ours."""
        ours = self._services.ctx.id
        found: dict[str, InferenceEngine] = {}
        for outcome in (await self._services.ctx.hooks.inference_engines()).outcomes:
            for engine in outcome.value or []:
                if (engine.id == ENGINE_ID and outcome.extension != ours) or engine.id in found:
                    self._services.ctx.log.warning("%s: there is an engine %s already", outcome.extension, engine.id)
                else:
                    found[engine.id] = engine
        return list(found.values())

    async def _can_answer(self, model: str) -> bool:
        """Whether this machine's own engine has the model, and did not just fail to load it."""
        services = self._services
        state, _ = services.pool.state(model)
        if state in ("loaded", "loading"):
            return True
        if state == "failed" and services.pool.refuses(model):
            return False
        try:
            return not (await anyio.to_thread.run_sync(services.store.get, model)).error
        except JanError:
            return False


def _name_at(engine: InferenceEngine, model: str) -> str:
    """What an engine calls a model; empty: it does not serve it."""
    if model in engine.models:
        return model
    if f"{engine.id}/{model}" in engine.models:
        return f"{engine.id}/{model}"
    anything = not engine.models and (engine.kind == "local" or model.startswith(f"{engine.id}/"))
    return model if anything else ""


def _lists(engine: InferenceEngine, model: str) -> bool:
    """Whether an engine says itself that it serves the model, rather than serving whatever is installed."""
    return bool(engine.models) or model.startswith(f"{engine.id}/")
