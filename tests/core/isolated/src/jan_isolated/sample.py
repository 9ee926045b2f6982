"""An extension that shows every kind of behaviour: one method for each thing a handler can do.

It is run in this process and, by `plugin.py`, in one of its own: what is tested of it holds for both.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import msgspec

from jan_core import Call, Context, Empty, JanError, hookimpl, method, methods_of


class Number(msgspec.Struct, forbid_unknown_fields=True):
    value: int = 0


class Text(msgspec.Struct, forbid_unknown_fields=True):
    text: str = ""


class Kettle(JanError):
    """The kettle is empty."""

    code, type, retryable = -32099, "kettle_empty", True


class Sample:
    """One method for each thing a handler can do."""

    def __init__(self) -> None:
        self.running = anyio.Event()
        self.cancelled = anyio.Event()
        self.release = anyio.Event()
        self.sent = 0
        self.kept: Any = None

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self.ctx = ctx

    @hookimpl
    def jan_methods(self) -> Any:
        return methods_of(self)

    @method("test.double")
    def double(self, params: Number) -> Number:
        """Twice the value."""
        return Number(params.value * 2)

    @method("test.echo")
    async def echo(self, params: Text) -> Text:
        """The text again."""
        return params

    @method("test.caller")
    async def who(self, params: Empty, call: Call) -> str:
        """Who calls."""
        return call.caller

    @method("test.count", item=Number)
    async def count(self, params: Number, call: Call) -> Number:
        """Send the numbers below `value`."""
        for value in range(params.value):
            await call.send(Number(value))
            self.sent = value + 1
        return Number(params.value)

    @method("test.half", item=Number, errors=[Kettle])
    async def half(self, params: Number, call: Call) -> Number:
        """Send one item, then fail."""
        await call.send(Number(1))
        raise Kettle("there is no water", litres=0)

    @method("test.work")
    async def work(self, params: Number, call: Call) -> str:
        """Report progress `value` times."""
        for done in range(params.value):
            call.progress("boiling", done=done, total=params.value)
        return "done"

    @method("test.wait")
    async def wait(self, params: Empty) -> str:
        """Wait until released."""
        self.running.set()
        try:
            await self.release.wait()
        except BaseException:
            self.cancelled.set()
            raise
        return "released"

    @method("test.boom")
    async def boom(self, params: Empty) -> str:
        """A defect."""
        raise ZeroDivisionError("secret detail")

    @method("test.boom_sync")
    def boom_sync(self, params: Empty) -> str:
        """A defect in a plain function."""
        raise ZeroDivisionError("secret detail")

    @method("test.exit")
    async def exit(self, params: Empty) -> str:
        """Try to end the process."""
        sys.exit(3)

    @method("test.exit_sync")
    def exit_sync(self, params: Empty) -> str:
        """Try to end the process from a plain function."""
        sys.exit(3)

    @method("test.stray")
    async def stray(self, params: Empty) -> str:
        """Await something that was cancelled."""
        waiting = asyncio.get_running_loop().create_future()
        waiting.cancel()
        await waiting
        return ""

    @method("test.drip", item=Text)
    async def drip(self, params: Number, call: Call) -> Number:
        """Send `value` items, letting others run between them, as a model does."""
        for sent in range(params.value):
            await call.send(Text("x" * 100))
            self.sent = sent + 1
            await asyncio.sleep(0)
        return params

    @method("test.keep")
    async def keep(self, params: Empty, call: Call) -> str:
        """Keep the call beyond the answer."""
        self.kept = call
        return "kept"

    @method("test.nonsense")
    async def nonsense(self, params: Empty) -> Any:
        """A result that is not data."""
        return object()

    @method("test.emit")
    def emit(self, params: Text) -> Empty:
        """Emit an event."""
        self.ctx.emit("test.happened", {"text": params.text}, key=params.text)
        return Empty()
