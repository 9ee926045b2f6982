"""Server-sent events (WHATWG HTML, 9.2): one answer streamed as `data: {…}` events, then `data: [DONE]`.

Nothing is sent before the first event is there, so that what fails before it is an ordinary error response. Later
errors are an event of their own in OpenAI's form, and no `[DONE]` follows: that line means the answer is whole. While
a model loads, comment lines keep proxies from giving up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio.lowlevel
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from jan_core import Caller, JanError, ShuttingDown

from .errors import api_error, error_body, error_response

__all__ = ["EventStream", "Flights"]

QUIET = 15.0
"""Seconds of silence after which a comment is sent."""
STALLED = 60.0
"""Seconds a client may leave what was sent unread before its answer is given up. Not a limit on the answer's length."""


class Flights:
    """The answers under way. Each ends when its client leaves; all end, saying so, when the server must stop."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        self.closing = False

    def __len__(self) -> int:
        return len(self._scopes)

    def end(self) -> None:
        """End every answer now; new ones end at once."""
        self.closing = True
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def step(self) -> Iterator[anyio.CancelScope]:
        """A block that is cancelled by `end`. Swallows that cancellation."""
        with anyio.CancelScope() as scope:
            if self.closing:
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    @asynccontextmanager
    async def flight(self, receive: Receive) -> AsyncIterator[anyio.CancelScope]:
        """A block that is cancelled when the client of `receive` leaves, or by `end`. Swallows that cancellation."""

        async def until_gone(scope: anyio.CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.cancel()

        with self.step() as scope:
            watcher = asyncio.create_task(until_gone(scope))
            try:
                yield scope
            finally:
                watcher.cancel()


class EventStream(Response):
    """A streaming method's items as events. `encode` makes the JSON of one item."""

    def __init__(
        self,
        caller: Caller,
        flights: Flights,
        method: str,
        params: Any,
        item: type,
        encode: Callable[[Any], bytes],
    ) -> None:
        self.background = None
        self._caller = caller
        self._flights = flights
        self._method, self._params, self._item = method, params, item
        self._encode = encode
        self._lock = asyncio.Lock()
        self._started = False
        self._written = time.monotonic()
        self._writing_since: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        failure: JanError | None = None
        whole = False
        async with self._flights.flight(receive) as flight:
            pulse = asyncio.create_task(self._pulse(send, flight))
            try:
                async with self._caller.stream(self._method, self._params, item=self._item) as stream:
                    async for item in stream:
                        # A source that always has the next item never lets this task sleep, and only sleepers hear
                        # of a cancellation.
                        await anyio.lowlevel.checkpoint_if_cancelled()
                        await self._write(send, b"data: " + self._encode(item) + b"\n\n")
                    await stream.result()
                await self._write(send, b"data: [DONE]\n\n", last=True)
                whole = True
            except JanError as error:
                failure = error
            finally:
                pulse.cancel()
        if whole:
            return
        if failure is None and self._flights.closing:
            failure = ShuttingDown("the server is shutting down")
        if failure is None:  # nobody is listening, but the server must know that the response is over
            if self._started:
                await self._finish(send)
        elif not self._started:
            await error_response(failure)(scope, receive, send)
        else:
            await self._write(send, b"data: " + error_body(api_error(failure)) + b"\n\n", last=True)

    async def _write(self, send: Send, data: bytes, *, last: bool = False) -> None:
        async with self._lock:
            self._writing_since = time.monotonic()
            if not self._started:
                headers = [
                    (b"content-type", b"text/event-stream; charset=utf-8"),
                    (b"x-accel-buffering", b"no"),
                ]
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                self._started = True
            await send({"type": "http.response.body", "body": data, "more_body": not last})
            self._written = time.monotonic()
            self._writing_since = None

    async def _finish(self, send: Send) -> None:
        with anyio.move_on_after(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pulse(self, send: Send, flight: anyio.CancelScope) -> None:
        """Send comments into silence; give up a client that does not read."""
        while True:
            await asyncio.sleep(min(QUIET, STALLED) / 3)
            now = time.monotonic()
            if self._writing_since is not None:
                if now - self._writing_since > STALLED:
                    flight.cancel()
            elif now - self._written > QUIET:
                await self._write(send, b": waiting\n\n")
