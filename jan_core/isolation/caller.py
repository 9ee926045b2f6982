"""How a child reaches the host's methods: `context.Caller` over a link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ..context import Progress
from ..errors import JanError, RpcError
from ..rpc.direct import _as
from .exchange import Exchange
from .link import Link

__all__ = ["LinkCaller"]


class LinkCaller:
    """See `context.Caller`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def call(
        self, method: str, params: Any = None, *, result: Any = None, progress: Progress | None = None
    ) -> Any:
        """Call a method. Raises RpcError."""
        exchange = self._ask(method, params, False, progress)
        return _as(await exchange.whole(), result)

    @asynccontextmanager
    async def stream(
        self, method: str, params: Any = None, *, item: Any = None, result: Any = None, progress: Progress | None = None
    ) -> AsyncIterator[_LinkStream]:
        """Call a streaming method; leaving early cancels the request and waits for its end."""
        exchange = self._ask(method, params, True, progress)
        try:
            yield _LinkStream(exchange, item, result)
        finally:
            await exchange.leave()

    def _ask(self, method: str, params: Any, items: bool, progress: Progress | None) -> Exchange:
        try:
            return self._link.ask(method, {} if params is None else params, items=items, progress=progress)
        except JanError as error:  # what is refused here already looks as if the host had refused it
            raise RpcError(error.to_object()) from None


class _LinkStream:
    def __init__(self, exchange: Exchange, item: Any, result: Any) -> None:
        self._exchange, self._item, self._result = exchange, item, result

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in self._exchange:
            yield _as(item, self._item)

    async def result(self) -> Any:
        """The method's result. Items not iterated over are dropped. Raises RpcError."""
        async for _ in self._exchange:
            pass
        return _as(await self._exchange.answer(), self._result)
