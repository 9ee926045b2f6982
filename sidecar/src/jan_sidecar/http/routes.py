"""The paths of the local API, each mapped to methods of the table. This list is the whole HTTP surface.

No route takes a path or a URL, opens a file, or reaches any method but those named here.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from jan_core import Caller, JanError, RpcError, ShuttingDown
from jan_core.types import (
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    EmbeddingList,
    EmbeddingRequest,
    TextCompletion,
)

from . import body, wire
from .access import Access
from .errors import Refusal, error_response
from .guard import App, Guard
from .sse import EventStream, Flights

__all__ = ["Api", "make_app"]

T = TypeVar("T")


class Api:
    """The handlers. Holds no state but the answers under way."""

    def __init__(self, caller: Caller, access: Access, flights: Flights) -> None:
        self._caller = caller
        self._access = access
        self._flights = flights

    def routes(self) -> list[Route]:
        """Every path that is served, with its method."""
        return [
            Route("/health", self.health),
            Route("/ready", self.ready),
            Route("/v1/models", self.models),
            Route("/v1/models/{id:path}/load", self.load, methods=["POST"]),
            Route("/v1/models/{id:path}/unload", self.unload, methods=["POST"]),
            Route("/v1/models/{id:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]

    async def health(self, request: Request) -> Response:
        """This process works. Says nothing about models."""
        return _json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Requests can be served: the models can be listed and the server is not stopping."""
        if self._flights.closing:
            raise ShuttingDown("the server is shutting down")
        await self._caller.call("models.list", {})
        return _json({"status": "ready"})

    async def models(self, request: Request) -> Response:
        """What is installed, which a request loads, and what remote engines may be asked for."""
        installed = [wire.model(record) for record in await self._installed()]
        return _json({"object": "list", "data": installed + await self._elsewhere()})

    async def model(self, request: Request) -> Response:
        """One model, installed or remote."""
        wanted = request.path_params["id"]
        found = next((model for model in await self._elsewhere() if model["id"] == wanted), None)
        return _json(found or wire.model(await self._record(wanted)))

    async def load(self, request: Request) -> Response:
        """Load a model now rather than at its first request. Answers when it is loaded; the body, if there is one, has
        the options of `models.load`, and the answer what was chosen.
        """
        record = await self._record(request.path_params["id"])
        with self._flights.step():
            raw = await body.read(request, self._access.body_limit)
        options = body.decode(raw, dict[str, Any]) if raw else {}
        loading = self._caller.call("models.load", {**options, "id": record["id"]})
        loaded: dict[str, Any] = await self._while_connected(request, loading)
        chosen = {key: loaded[key] for key in ("memory", "chosen") if loaded.get(key)}
        return _json({**wire.model(await self._record(record["id"])), **chosen})

    async def unload(self, request: Request) -> Response:
        """Free a model's memory."""
        record = await self._record(request.path_params["id"])
        await self._while_connected(request, self._caller.call("models.unload", {"id": record["id"]}))
        return _json(wire.model(await self._record(record["id"])))

    async def chat(self, request: Request) -> Response:
        """OpenAI's POST /v1/chat/completions."""
        asked = await self._asked(request, ChatRequest)
        if asked.stream:
            usage = bool(asked.stream_options is not None and asked.stream_options.include_usage)
            return self._events("chat.complete", asked, ChatChunk, lambda chunk: wire.chat_chunk(chunk, usage))
        answer = await self._while_connected(request, self._caller.call("chat.complete", asked, result=ChatCompletion))
        return Response(wire.chat(answer), media_type="application/json")

    async def completions(self, request: Request) -> Response:
        """OpenAI's POST /v1/completions (one prompt, as text)."""
        asked = await self._asked(request, CompletionRequest)
        if asked.stream:
            usage = bool(asked.stream_options is not None and asked.stream_options.include_usage)
            return self._events("completions.create", asked, TextCompletion, lambda c: wire.text_chunk(c, usage))
        answer = await self._while_connected(
            request, self._caller.call("completions.create", asked, result=TextCompletion)
        )
        return Response(wire.text(answer), media_type="application/json")

    async def embeddings(self, request: Request) -> Response:
        """OpenAI's POST /v1/embeddings."""
        asked = await self._asked(request, EmbeddingRequest)
        asked.stream = False  # it is not OpenAI's: what it means is for other callers
        answer = await self._while_connected(
            request, self._caller.call("embeddings.create", asked, result=EmbeddingList)
        )
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def _asked(self, request: Request, kind: type[T]) -> T:
        """The body. A client that never completes it must not hold up the end of the server."""
        with self._flights.step():
            return body.decode(await body.read(request, self._access.body_limit), kind)
        raise ShuttingDown("the server is shutting down")

    def _events(self, method: str, params: Any, item: type, encode: Any) -> Response:
        return EventStream(self._caller, self._flights, method, params, item, encode)

    async def _while_connected(self, request: Request, work: Awaitable[T]) -> T:
        async with self._flights.flight(request.receive):
            return await work
        if self._flights.closing:
            raise ShuttingDown("the server is shutting down")
        raise Refusal(499, "client_left", "the client left before the answer was complete")  # for the log alone

    async def _installed(self) -> list[dict[str, Any]]:
        answer = await self._caller.call("models.list", {})
        records: list[dict[str, Any]] = answer["models"] if isinstance(answer, dict) else answer
        return records

    async def _elsewhere(self) -> list[dict[str, Any]]:
        """The models of remote engines, as far as the policy lets requests go to them."""
        try:
            answer = await self._caller.call("remotes.list", {})
        except RpcError as error:
            if error.type in ("method_not_found", "extension_unavailable"):
                return []
            raise
        remotes = [each for each in answer["remotes"] if each.get("on_this_machine") or not answer["kept_here"]]
        return [wire.remote_model(each["id"], name) for each in remotes for name in each.get("models", ())]

    async def _record(self, wanted: str) -> dict[str, Any]:
        for record in await self._installed():
            if record["id"] == wanted:
                return record
        raise Refusal(404, "model_not_found", f"there is no model {wanted!r} here", param="model")


def make_app(caller: Caller, access: Access, flights: Flights) -> App:
    """The whole application, guard included."""
    router = Router(Api(caller, access, flights).routes(), redirect_slashes=False, default=_not_found)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # "app" makes the router raise HTTPException rather than answer in plain text.
        scope["app"] = router
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            refusal = Refusal(
                error.status_code,
                "method_not_allowed" if error.status_code == 405 else "bad_request",
                f"{scope['method']} is not served at {scope['path']}" if error.status_code == 405 else error.detail,
                headers=dict(error.headers or {}),
            )
            await error_response(refusal)(scope, receive, send)
        except JanError as error:
            await error_response(error)(scope, receive, send)

    return Guard(app, access)


async def _not_found(scope: Any, receive: Any, send: Any) -> None:
    raise Refusal(404, "unknown_path", f"nothing is served at {scope['path']}")


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
