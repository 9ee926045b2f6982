"""An extension that does everything a client must be able to bear: answers, streams, reports, waits, fails, tells."""

from __future__ import annotations

from typing import Any, Literal

import anyio
from msgspec import Struct

from jan_core import Call, Context, Empty, JanError, Method, hookimpl, method, methods_of


class NotToday(JanError):
    """It does not want to; `weekday` says when it did not."""

    code, type, retryable = -32090, "not_today", True


class ProbeSettings(Struct):
    """`loud`: in capitals."""

    loud: bool = False


class Value(Struct):
    value: Any


class Count(Struct):
    upto: int


class Counted(Struct):
    count: int


class Fail(Struct):
    how: Literal["domain", "defect"]


class ProbeExtension:
    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        self._ctx = ctx

    @hookimpl
    def jan_settings(self) -> type[ProbeSettings]:
        return ProbeSettings

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @method("probe.echo")
    def echo(self, params: Value) -> Value:
        """Return what was sent."""
        return params

    @method("probe.count", item=int)
    async def count(self, params: Count, call: Call) -> Counted:
        """Stream the numbers below `upto`."""
        for n in range(params.upto):
            await call.send(n)
        return Counted(params.upto)

    @method("probe.work")
    async def work(self, params: Count, call: Call) -> Counted:
        """Report each step."""
        for n in range(params.upto):
            call.progress(f"step {n}", done=n, total=params.upto)
        return Counted(params.upto)

    @method("probe.wait", item=str)
    async def wait(self, params: Empty, call: Call) -> Empty:
        """Say that it waits, and do so until it is cancelled."""
        await call.send("waiting")
        await anyio.sleep_forever()
        return Empty()

    @method("probe.late", deadline=0.05)
    async def late(self, params: Empty) -> Empty:
        """Take longer than it may."""
        await anyio.sleep_forever()
        return Empty()

    @method("probe.fail", errors=[NotToday])
    async def fail(self, params: Fail) -> Empty:
        """Fail as an extension means to, or as it does not."""
        if params.how == "domain":
            raise NotToday("not on a Sunday", weekday=7)
        raise RuntimeError("nobody sees this but the log")

    @method("probe.tell", events={"probe.told": Value})
    def tell(self, params: Value) -> Empty:
        """Emit the event `probe.told`."""
        self._ctx.emit("probe.told", {"value": params.value})
        return Empty()
