"""Flow control of streams between two processes: a slow reader stalls its own stream and no other.

All calls of an extension share one socket, so the socket's own back-pressure would hold up everybody's. Each stream
therefore begins with room for `WINDOW` items, and gets more as its reader takes them (`$/taken`). This is the side that
serves; the side that reads is `link.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from ..invoke import bind
from ..methods import Call, Handler, Method
from .shapes import Asked, decode_asked

__all__ = ["WINDOW", "WindowedCall", "Windows"]

WINDOW = 64
"""Items on their way in one stream: as many as between a handler and a slow consumer in one process."""


class Taken(msgspec.Struct):
    """`$/taken`: the reader of stream `key` took `count` more items."""

    key: int
    count: int


class Windows:
    """The streams that are being sent over one socket."""

    def __init__(self) -> None:
        self._open: dict[int, WindowedCall] = {}
        self.method = Method(
            name="$/taken",
            params=Taken,
            result=None,
            item=None,
            handler=self._taken,
            takes_call=False,
            summary="More room in a stream.",
            decode=msgspec.json.Decoder(Taken).decode,
        )

    def serve(self, method: Method) -> Method:
        """The same method for the other process: its params come wrapped (`shapes.Asked`), its items by the window."""

        async def slow(asked: Asked) -> Any:
            return await method.handler(bind(method, asked.params))

        def quick(asked: Asked) -> Any:
            return method.handler(bind(method, asked.params))

        async def slow_with_call(asked: Asked, call: Call) -> Any:
            inner = WindowedCall(call, asked)
            params = bind(method, asked.params)
            self._open[asked.key] = inner
            try:
                return await method.handler(params, inner)
            finally:
                self._open.pop(asked.key, None)
                inner.end()

        def quick_with_call(asked: Asked, call: Call) -> Any:
            return method.handler(bind(method, asked.params), WindowedCall(call, asked))

        if method.takes_call:
            handler: Handler = slow_with_call if method.is_async else quick_with_call
        else:
            handler = slow if method.is_async else quick
        return replace(method, params=Asked, decode=decode_asked, handler=handler)

    def serve_all(self, methods: Mapping[str, Method]) -> dict[str, Method]:
        """`serve` for a whole table."""
        return {name: self.serve(method) for name, method in methods.items()}

    def _taken(self, params: Taken) -> None:
        if (call := self._open.get(params.key)) is not None:
            call.more(params.count)


class WindowedCall:
    """A `Call` that knows who asked in the first place, and waits while its window is full."""

    def __init__(self, call: Call, asked: Asked) -> None:
        self.caller = asked.caller
        self.items = asked.items
        self._call = call
        self._room = WINDOW
        self._more = asyncio.Event()
        self._ended = False

    async def send(self, item: Any) -> None:
        while not self._room and not self._ended:
            self._more.clear()
            await self._more.wait()
        self._room -= 1
        await self._call.send(item)

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        self._call.progress(message, done=done, total=total)

    def more(self, count: int) -> None:
        self._room += count
        self._more.set()

    def end(self) -> None:
        self._ended = True
        self._more.set()
