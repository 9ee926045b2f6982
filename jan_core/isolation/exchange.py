"""One request of a link, as who made it sees it: items as they come, then the answer, and how to want it no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from ..context import Progress
from ..errors import RpcError
from .windows import WINDOW

if TYPE_CHECKING:
    from .link import Link

__all__ = ["Exchange", "Value"]

SETTLE = 5.0
"""Seconds a cancelled request may take to end."""

CANCELLED = -32800

END = object()


class Value(msgspec.Struct):
    """What `$/progress` says."""

    kind: str
    message: str = ""
    done: float | None = None
    total: float | None = None


class Exchange:
    """One request: iterate over its items, then take its answer. Made by `Link.ask`."""

    def __init__(self, link: Link, id: int, *, items: bool, progress: Progress | None) -> None:
        self._link, self.id, self._wanted, self._progress = link, id, items, progress
        self._answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._items: asyncio.Queue[Any] = asyncio.Queue()
        self._untold = 0

    async def __aiter__(self) -> AsyncIterator[Any]:
        while not (self._answer.done() and self._items.empty()):
            item = await self._items.get()
            if item is not END:
                yield item
                self._taken()

    async def answer(self) -> Any:
        """The result. Raises RpcError, or what the link ended with."""
        return await asyncio.shield(self._answer)

    async def whole(self, settle: float = SETTLE) -> Any:
        """The result, by a caller that may be cancelled: the other side is told, and has `settle` seconds to end.

        What it ends with counts, as it does in one process: a handler may finish all the same.
        """
        try:
            return await self.answer()
        except asyncio.CancelledError:
            return await self.cancelled(settle)

    async def cancelled(self, settle: float = SETTLE) -> Any:
        """Cancel the request; returns a result that came all the same, else raises CancelledError or RpcError."""
        await self.leave(settle)
        if self._answer.done():
            error = self._answer.exception()
            if error is None:
                return self._answer.result()
            if not (isinstance(error, RpcError) and error.code == CANCELLED):
                raise error
        raise asyncio.CancelledError

    async def leave(self, settle: float = SETTLE) -> None:
        """Want no more of it: cancel what still runs and wait until it has ended, inside a cancelled scope too."""
        import anyio

        if not self._answer.done():
            self._link.notify("$/cancelRequest", {"id": self.id})
            self._wanted = False
            with anyio.move_on_after(settle, shield=True):
                await asyncio.wait([self._answer])
        self._link.forget(self.id)

    # -- what the link hears ----------------------------------------------------------------------------------------

    def item(self, delta: Any) -> None:
        if not self._wanted:
            self._taken()
        elif self._items.qsize() > WINDOW:
            self._link.end("it sent more of a stream than was asked for")
        else:
            self._items.put_nowait(delta)

    def report(self, value: Value) -> None:
        if self._progress is not None and value.kind != "end":
            self._progress(value.message, value.done, value.total)

    def finish(self, result: Any, error: BaseException | None) -> None:
        if not self._answer.done():
            if error is None:
                self._answer.set_result(result)
            else:
                self._answer.set_exception(error)
                self._answer.exception()  # whoever asked may have gone
        self._items.put_nowait(END)

    def _taken(self) -> None:
        self._untold += 1
        if self._untold >= WINDOW // 2 and not self._answer.done():
            self._link.notify("$/taken", {"key": self.id, "count": self._untold})
            self._untold = 0
