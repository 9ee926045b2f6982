"""A JSON-RPC client over a pair of byte streams: the other end of `peer`, for tests, tools and Python frontends.

Implements `context.Caller`. It is no process manager: `connect` takes streams, whoever spawned the process owns it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import msgspec

from ..context import Progress
from ..errors import ErrorObject, RpcError
from ..events import Event, EventBus
from . import messages
from .direct import _as, settled
from .framing import Splitter

__all__ = ["WireClient"]

_END = object()


class _Incoming(msgspec.Struct):
    id: int | str | None = None
    method: str = ""
    params: Any = None
    result: Any = None
    error: ErrorObject | None = None


class _Pending:
    __slots__ = ("answer", "items", "progress")

    def __init__(
        self, answer: asyncio.Future[Any], items: asyncio.Queue[Any] | None, progress: Progress | None
    ) -> None:
        self.answer, self.items, self.progress = answer, items, progress


class WireClient:
    """Speaks to a peer through an asyncio stream pair, lines of JSON."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._ids = itertools.count(1)
        self._pending: dict[Any, _Pending] = {}
        self._decode = msgspec.json.Decoder(_Incoming | list[_Incoming]).decode
        self.bus = EventBus()
        self.unmatched: list[Any] = []
        """Messages that belong to no request of this client: answers with a null id, for one."""
        self._task = asyncio.create_task(self._read())

    async def call(
        self, method: str, params: Any = None, *, result: Any = None, progress: Progress | None = None
    ) -> Any:
        """Call a method. Raises RpcError; ConnectionError when the other side is gone."""
        id, pending = self._request(method, params, None, progress)
        return _as(await self._answer(id, pending), result)

    @asynccontextmanager
    async def stream(
        self, method: str, params: Any = None, *, item: Any = None, result: Any = None, progress: Progress | None = None
    ) -> AsyncIterator[_WireStream]:
        """Call a streaming method; leaving early cancels the request and waits for its answer."""
        id, pending = self._request(method, params, asyncio.Queue(), progress)
        stream = _WireStream(self, id, pending, item, result)
        try:
            yield stream
        finally:
            if not pending.answer.done():
                self.notify("$/cancelRequest", {"id": id})
                await settled(pending.answer)
            if not pending.answer.cancelled():
                pending.answer.exception()
            self._pending.pop(id, None)

    def notify(self, method: str, params: Any = None) -> None:
        """Send a notification."""
        self.send_raw(messages.notification(method, {} if params is None else params))

    def send_raw(self, message: bytes) -> None:
        """Send bytes as one line, whatever they are."""
        self._writer.write(message + b"\n")

    def notifications(self, listener: Callable[[Event], None]) -> AbstractContextManager[None]:
        """Hear events until the context ends."""
        return self.bus.subscribe(listener)

    async def aclose(self) -> None:
        """Close the way out and wait until the other side has closed the way in."""
        self._writer.close()
        await self._task

    def _request(
        self, method: str, params: Any, items: asyncio.Queue[Any] | None, progress: Progress | None
    ) -> tuple[int, _Pending]:
        if self._task.done():
            raise ConnectionError("the other side is gone")
        id = next(self._ids)
        body = msgspec.to_builtins(params) if params is not None else {}
        if progress is not None:
            body = {**body, "progressToken": id}
        pending = self._pending[id] = _Pending(asyncio.get_running_loop().create_future(), items, progress)
        self.send_raw(messages.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": body}))
        return id, pending

    async def _answer(self, id: int, pending: _Pending) -> Any:
        try:
            return await asyncio.shield(pending.answer)
        except asyncio.CancelledError:
            if not pending.answer.done():
                self.notify("$/cancelRequest", {"id": id})
            raise

    async def _read(self) -> None:
        try:
            splitter = Splitter()
            while data := await self._reader.read(64 << 10):
                for message in splitter.feed(data):
                    if isinstance(message, bytes):
                        self._message(message)
        finally:
            for pending in list(self._pending.values()):
                if not pending.answer.done():
                    pending.answer.set_exception(ConnectionError("the other side is gone"))
                    pending.answer.exception()
                if pending.items is not None:
                    pending.items.put_nowait(_END)

    def _message(self, data: bytes) -> None:
        incoming = self._decode(data)
        for message in incoming if isinstance(incoming, list) else [incoming]:
            self._one(message)

    def _one(self, message: _Incoming) -> None:
        if message.method == "$/stream":
            pending = self._pending.get(message.params["id"])
            if pending is not None and pending.items is not None:
                pending.items.put_nowait(message.params["delta"])
        elif message.method == "$/progress":
            pending = self._pending.get(message.params["token"])
            value = message.params["value"]
            if pending is not None and pending.progress is not None and value["kind"] != "end":
                pending.progress(value.get("message", ""), value.get("done"), value.get("total"))
        elif message.method:
            self.bus.emit(Event(message.method, message.params, "wire"))
        elif (found := self._pending.pop(message.id, None)) is not None:
            if not found.answer.done():
                if message.error is not None:
                    found.answer.set_exception(RpcError(message.error))
                else:
                    found.answer.set_result(message.result)
            found.answer.exception() if message.error is not None else None
            if found.items is not None:
                found.items.put_nowait(_END)
        else:
            self.unmatched.append(message)


class _WireStream:
    def __init__(self, client: WireClient, id: int, pending: _Pending, item: Any, result: Any) -> None:
        self._client, self._id, self._pending, self._item, self._result = client, id, pending, item, result

    async def __aiter__(self) -> AsyncIterator[Any]:
        items = self._pending.items
        assert items is not None
        while not (self._pending.answer.done() and items.empty()):
            item = await items.get()
            if item is not _END:
                yield _as(item, self._item)

    async def result(self) -> Any:
        """The method's result. Items not iterated over are dropped. Raises RpcError."""
        async for _ in self:
            pass
        return _as(await self._client._answer(self._id, self._pending), self._result)
