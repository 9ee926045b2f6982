"""A client in the same process: the interface of the wire without bytes, framing or encoding.

Extensions call each other through it, the command line and HTTP use it, and the contract tests run over it and over the
wire alike. Params and answers still cross as data, so that what works here works over a pipe. Not a shortcut around the
method table: errors, leases and activation are the same (`invoke.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

import msgspec

from ..context import Progress
from ..errors import ErrorObject, InvalidParams, RpcError
from ..events import Event
from ..invoke import Service, error_object, invalid, run

__all__ = ["DirectClient"]

STREAM_BUFFER = 64
"""Items between a handler and a slow consumer; the handler waits beyond it, as it would on a full pipe."""

SETTLE_LIMIT = 5.0
"""Seconds a caller that left waits for the handler it cancelled."""

_END = object()


class DirectClient:
    """Implements `context.Caller` on a host in this process. `name` is what handlers see as their caller."""

    def __init__(self, service: Service, name: str = "direct") -> None:
        self._service, self.name = service, name

    async def call(
        self, method: str, params: Any = None, *, result: Any = None, progress: Progress | None = None
    ) -> Any:
        """Call a method; stream items, if there are any, are dropped. Raises RpcError."""
        return _as(await self._run(method, params, _DirectCall(self.name, None, progress, result)), result)

    @asynccontextmanager
    async def stream(
        self, method: str, params: Any = None, *, item: Any = None, result: Any = None, progress: Progress | None = None
    ) -> AsyncIterator[_DirectStream]:
        """Call a streaming method; see `context.Caller.stream`."""
        queue: asyncio.Queue[Any] = asyncio.Queue(STREAM_BUFFER)
        task = asyncio.create_task(self._run(method, params, _DirectCall(self.name, queue, progress, result)))
        stream = _DirectStream(queue, task, item, result)
        try:
            yield stream
        finally:
            if not task.done():
                task.cancel()
                await settled(task)
            if not task.cancelled():
                task.exception()  # retrieved, so that leaving early does not log it as lost

    def notifications(self, listener: Callable[[Event], None]) -> AbstractContextManager[None]:
        """Hear events until the context ends."""
        return self._service.bus.subscribe(listener)

    async def _run(self, name: str, params: Any, call: _DirectCall) -> Any:
        try:
            method = self._service.find(name) or await self._service.resolve(name)
            try:
                bound = method.convert({} if params is None else params)
            except msgspec.ValidationError as error:
                raise invalid(error) from None
            except RecursionError:
                raise InvalidParams("params are nested too deeply", path="$") from None
            with method.generation.lease() if method.generation else nullcontext():
                answer = await run(method, bound, call, self._service.timings)
            # As data here, where a result that is none counts against the handler, as it would on a wire.
            return answer if call.typed is not None and type(answer) is call.typed else msgspec.to_builtins(answer)
        except RpcError:
            raise  # from a call further in: it is in wire form already
        except Exception as error:
            raise RpcError(error_object(error, name)) from error


class _DirectStream:
    """Items as they come, then the result."""

    def __init__(self, queue: asyncio.Queue[Any], task: asyncio.Task[Any], item: Any, result: Any) -> None:
        self._queue, self._task, self._item, self._result = queue, task, item, result
        task.add_done_callback(self._ended)
        self._over = False

    def _ended(self, task: asyncio.Task[Any]) -> None:
        # The consumer may be asleep in get(); a full queue means that it is not.
        if not self._queue.full():
            self._queue.put_nowait(_END)

    async def __aiter__(self) -> AsyncIterator[Any]:
        while not (self._task.done() and self._queue.empty()):
            item = await self._queue.get()
            if item is not _END:
                yield _as(item, self._item)
                # A producer that always has the next item would keep a cancelled consumer from noticing.
                await asyncio.sleep(0)

    async def result(self) -> Any:
        """The method's result. Items not iterated over are dropped. Raises RpcError."""
        async for _ in self:
            pass
        return _as(await self._task, self._result)


class _DirectCall:
    """The `Call` of an in-memory request."""

    def __init__(self, caller: str, queue: asyncio.Queue[Any] | None, progress: Progress | None, typed: Any) -> None:
        self.caller, self.typed = caller, typed
        self._queue, self._progress = queue, progress

    async def send(self, item: Any) -> None:
        if self._queue is not None:
            await self._queue.put(item)
        else:
            await asyncio.sleep(0)

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        if self._progress is not None:
            self._progress(message, done, total)


async def settled(future: asyncio.Future[Any]) -> None:
    """Wait until a cancelled call has ended, also inside a scope that is cancelled itself: what it was doing, storing a
    partial answer perhaps, is then done when its caller goes on. Bounded, because a handler may refuse to end."""
    import anyio

    with anyio.move_on_after(SETTLE_LIMIT, shield=True):
        await asyncio.wait([future])


def _as(value: Any, kind: Any) -> Any:
    """An answer as the caller wants it: a value of `kind`, or plain data when none is named."""
    if kind is None:
        return msgspec.to_builtins(value)
    if type(value) is kind:
        return value
    try:
        return msgspec.convert(msgspec.to_builtins(value), kind)
    except msgspec.ValidationError as error:
        message = f"the answer has not the expected shape: {error}"
        raise RpcError(ErrorObject(-32603, message, {"type": "internal_error"})) from error
