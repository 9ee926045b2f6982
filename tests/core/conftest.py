"""A host with the sample extension in it (`isolated/`), and clients that reach it in memory and over a wire."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from jan_core.host import Host
from jan_core.rpc import stdio
from jan_core.rpc.client import WireClient
from jan_core.rpc.direct import DirectClient

from .isolated.src.jan_isolated.sample import Kettle, Number, Sample, Text

__all__ = ["Client", "Kettle", "Number", "Sample", "Text", "Wire"]

Client = DirectClient | WireClient
Wire = Callable[..., AbstractAsyncContextManager[WireClient]]


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
