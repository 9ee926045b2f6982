"""The extension that bench/host calls: the same echo and stream as the other servers there offer."""

from __future__ import annotations

import msgspec

from jan_core import Call, Context, Method, hookimpl, method, methods_of

from .busy import Busy
from .inside import Inside


class Echo(msgspec.Struct):
    """What goes in comes out."""

    session: str
    op: str
    text: str
    temperature: float
    top: int
    flags: list[int]


class Count(msgspec.Struct):
    """A number of items."""

    count: int


class Token(msgspec.Struct):
    """One item."""

    text: str


class Bench:
    """The plugin."""

    def __init__(self) -> None:
        self._inside = Inside()
        self._busy = Busy()

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self._inside.begin(ctx)

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self, self._inside, self._busy)

    @method("bench.echo")
    def echo(self, params: Echo) -> Echo:
        """Answer at once, on the event loop."""
        return same(params)

    @method("bench.echo_async", deadline=30.0)
    async def echo_async(self, params: Echo) -> Echo:
        """Answer from a task: with cancellation, a lease and a deadline."""
        return same(params)

    @method("bench.stream", item=Token)
    async def stream(self, params: Count, call: Call) -> Count:
        """Send so many items."""
        for _ in range(params.count):
            await call.send(Token(" hello"))
        return Count(params.count)


def same(params: Echo) -> Echo:
    return Echo(params.session, params.op, params.text, params.temperature, params.top, params.flags)
