"""A test extension that shows every kind of behaviour, and clients that reach it in memory and over a wire."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from jan_core import Call, Context, Empty, JanError, hookimpl, method, methods_of
from jan_core.host import Host
from jan_core.rpc import stdio
from jan_core.rpc.client import WireClient
from jan_core.rpc.direct import DirectClient

Client = DirectClient | WireClient
Wire = Callable[..., AbstractAsyncContextManager[WireClient]]


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


@pytest.fixture
def sample() -> Sample:
    return Sample()


@pytest.fixture
async def host(open_host: Any, sample: Sample) -> AsyncIterator[Host]:
    async with open_host(sample) as opened:
        yield opened


@pytest.fixture
def wire(host: Host) -> Wire:
    """Connect a client over two pipes, as a process would be; `initialize` unless told not to."""

    @asynccontextmanager
    async def connect(*, initialize: bool = True) -> AsyncIterator[WireClient]:
        their_read, our_write = os.pipe()
        our_read, their_write = os.pipe()
        loop = asyncio.get_running_loop()
        serving = asyncio.create_task(stdio.serve(host, their_read, their_write))
        reader = asyncio.StreamReader()
        in_transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(our_read, "rb", 0)
        )
        out_transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(our_write, "wb", 0)
        )
        client = WireClient(reader, asyncio.StreamWriter(out_transport, protocol, None, loop))
        client.transport = in_transport  # type: ignore[attr-defined]
        client.serving = serving  # type: ignore[attr-defined]
        try:
            if initialize:
                await client.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "wire"}})
            yield client
        finally:
            out_transport.close()
            with anyio.fail_after(5):
                await serving
            os.close(their_write)
            os.close(their_read)
            with anyio.fail_after(5):
                await client.aclose()
            in_transport.close()

    return connect


@pytest.fixture(params=["direct", "wire-loop", "wire-threads"])
async def client(
    request: pytest.FixtureRequest, host: Host, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """The same contract over every way there is to reach a host."""
    if request.param == "direct":
        yield host.client("direct")
        return
    if request.param == "wire-threads":
        monkeypatch.setattr(stdio, "_pollable", lambda fd: False)
    async with wire() as connected:
        yield connected
