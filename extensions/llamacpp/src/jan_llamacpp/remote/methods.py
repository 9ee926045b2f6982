"""The methods `remotes.*`: which remote engines there are, and asking one of them.

Whoever calls `remotes.complete` passes the same policy as a request that was routed to it: this is the place from which
bytes leave, so it asks again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import aclosing
from functools import cached_property, partial
from typing import TYPE_CHECKING

import anyio
import msgspec

from jan_core import Call, Empty, InvalidParams, StorageError, method
from jan_core.types import ChatChunk, ChatCompletion, ChatRequest

from ..errors import RequestRefused
from ..routing import ENGINE_ID, kept_here
from .errors import (
    REMOTE_ERRORS,
    RemoteAnswerInvalid,
    RemoteExists,
    RemoteKeyUnavailable,
    RemoteModelNotFound,
    RemoteNotFound,
)
from .remote import Remote
from .shapes import AddRemote, RemoteAsked, RemoteId, RemoteList, RemoteTest

if TYPE_CHECKING:
    from ..services import Services
    from .keys import Keys

__all__ = ["RemoteMethods"]

_KEPT = (RemoteKeyUnavailable, StorageError, InvalidParams)


class RemoteMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @cached_property
    def _keys(self) -> Keys:
        from .keys import Keys

        return Keys(self.services.ctx.data_dir / "keys")

    @cached_property
    def _changing(self) -> anyio.Lock:
        return anyio.Lock()

    @method("remotes.list", events={"remotes.asked": RemoteAsked})
    async def list(self, params: Empty) -> RemoteList:
        """List the remote engines, and say whether the policy lets requests go to them. Keys are never shown."""
        settings = self.services.settings
        return RemoteList([*settings.remotes], kept_here(settings.policy, "normal"))

    @method("remotes.add", errors=[RemoteExists, *_KEPT])
    async def add(self, params: AddRemote) -> Remote:
        """Add a remote engine, or change one. Its key goes to the system's keyring, else to a file of the owner's
        alone.

        Nothing is sent to it: `remotes.test` does. The policy stays as it is.
        """
        async with self._changing:
            old = next((r for r in self.services.settings.remotes if r.id == params.remote.id), None)
            if params.remote.id == ENGINE_ID or (old is not None and not params.replace):
                raise RemoteExists(f"there is an engine {params.remote.id} already", remote=params.remote.id)
            same = old is not None and old.address.origin == params.remote.address.origin
            new = msgspec.structs.replace(params.remote, key=old.key if old and same else "none")
            if params.key is not None:
                new = msgspec.structs.replace(new, key=await self._keys.put(new, params.key))
            others = [r for r in self.services.settings.remotes if r.id != new.id]
            await self._store([*others, new])
            if old is not None and not (same and old.key == new.key) and not old.key == new.key == "file":
                await self._keys.remove(old)  # a file was written over
            return new

    @method("remotes.remove", errors=[RemoteNotFound, *_KEPT])
    async def remove(self, params: RemoteId) -> Empty:
        """Remove a remote engine, and forget its key."""
        async with self._changing:
            gone = self._find(params.id)
            await self._store([r for r in self.services.settings.remotes if r.id != gone.id])
            await self._keys.remove(gone)
            return Empty()

    @method("remotes.test", errors=[*REMOTE_ERRORS, RequestRefused])
    async def test(self, params: RemoteId) -> RemoteTest:
        """Ask a remote engine which models it has: whether it can be reached, and takes the key.

        Nothing a person wrote goes along. Refused in offline mode, unless the engine is on this machine.
        """
        remote = self._find(params.id)
        if self.services.settings.policy == "offline" and not remote.on_this_machine:
            raise RequestRefused(f"{remote.id} is not asked: {kept_here('offline', 'normal')}", engine=remote.id)
        from .connection import connect
        from .wire import WireModels

        key = await self._keys.get(remote)
        began = time.monotonic()
        models: list[str] = []
        async with connect(remote, key) as connection:
            try:
                response = await connection.send("GET", "/models")
                body = await connection.whole(response)
                models = [model.id for model in msgspec.json.decode(body, type=WireModels).data]
            except RemoteModelNotFound:
                pass  # it is there, it takes the key as far as one can tell, and it does not list models
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                what = f"{remote.id} sent what is no list of models: is the address that of an OpenAI-compatible API?"
                raise RemoteAnswerInvalid(what, remote=remote.id, reason="malformed") from None
        return RemoteTest(remote.id, models, time.monotonic() - began, remote.key)

    @method("remotes.complete", item=ChatChunk, errors=[*REMOTE_ERRORS, RequestRefused, InvalidParams])
    async def complete(self, params: ChatRequest, call: Call) -> ChatCompletion:
        """Have a remote engine answer a chat: `model` is `ID/MODEL`. `chat.complete` is for the others to call.

        Tried again only before the first byte of an answer. Cancelling ends the connection. The answer's `model` names
        the engine, the event `remotes.asked` tells of each request that is sent.
        """
        remote = self._find(params.model.partition("/")[0])
        model = params.model.removeprefix(f"{remote.id}/")
        if remote.models and model not in remote.models:
            raise RemoteModelNotFound(
                f"{model} is not among the models of {remote.id}", remote=remote.id, known=[*remote.models]
            )
        why = kept_here(self.services.settings.policy, params.sensitivity)
        if why and not remote.on_this_machine:
            raise RequestRefused(f"{remote.id} is not asked: {why}", engine=remote.id)
        from .answer import RemoteAnswer
        from .body import request_body
        from .connection import connect
        from .retry import persist
        from .sse import EventParser, EventTooLarge

        key = await self._keys.get(remote)
        body = request_body(params, model)
        include_usage = bool(params.stream_options and params.stream_options.include_usage)
        answer = RemoteAnswer(remote.id, params.model, include_usage=include_usage, key=key)

        async def send(chunk: ChatChunk | None) -> None:
            if chunk is not None and params.stream:
                await call.send(chunk)

        self._tell(remote, params, call)
        async with connect(remote, key) as connection:
            attempt = partial(connection.send, "POST", "/chat/completions", body)
            response = await persist(attempt, remote.retries)
            if response.headers.get("Content-Type", "").lower().startswith("application/json"):
                await send(answer.whole(await connection.whole(response)))
            else:
                parser = EventParser()
                async with aclosing(connection.chunks(response)) as pieces:
                    async for piece in pieces:
                        try:
                            events = parser.feed(piece)
                        except EventTooLarge as error:
                            what = f"{remote.id}: {error}"
                            raise RemoteAnswerInvalid(what, remote=remote.id, reason="limit") from None
                        for event in events:
                            await send(answer.feed(event))
                        if answer.ended:
                            break
                if not answer.ended and (rest := parser.pending()).strip() == b"[DONE]":
                    await send(answer.feed(rest))
        await send(answer.last())
        return answer.completion()

    def _tell(self, remote: Remote, chat: ChatRequest, call: Call) -> None:
        """Everybody who listens, and the person who waits: something is about to leave."""
        origin = remote.address.origin
        if not remote.on_this_machine:
            call.progress(f"asking {remote.id}: this leaves the machine, to {remote.address.host}")
        asked = RemoteAsked(remote.id, origin, chat.model, chat.thread_id, remote.on_this_machine)
        self.services.ctx.emit("remotes.asked", asked)

    def _find(self, id: str) -> Remote:
        remotes = self.services.settings.remotes
        for remote in remotes:
            if remote.id == id:
                return remote
        raise RemoteNotFound(f"there is no remote engine {id!r}", known=[r.id for r in remotes])

    async def _store(self, remotes: Iterable[Remote]) -> None:
        values = {"remotes": msgspec.to_builtins(sorted(remotes, key=lambda r: r.id))}
        await self.services.ctx.call("settings.set", {"extension": self.services.ctx.id, "values": values})
