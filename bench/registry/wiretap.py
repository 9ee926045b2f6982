"""A relay between a client and a web server that counts every byte, headers and all, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

__all__ = ["Wiretap", "tapped"]


@dataclass
class Wiretap:
    """`url`: the server's, through the relay. `sent`, `received`: bytes so far, as the client sees it; without TCP's
    and TLS's own."""

    url: str = ""
    sent: int = 0
    received: int = 0

    def reset(self) -> None:
        self.sent = self.received = 0


@asynccontextmanager
async def tapped(url: str) -> AsyncIterator[Wiretap]:
    """A relay to the server at `url` (`http://HOST:PORT/…`) until the block ends."""
    tap = Wiretap()
    host, _, rest = url.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")

    relays: set[asyncio.Task[None] | None] = set()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.current_task())
        there, out = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(pump(reader, out, up=True))
                both.create_task(pump(there, writer, up=False))
        finally:
            out.close()
            writer.close()

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while chunk := await source.read(1 << 16):
                tap.sent += len(chunk) if up else 0
                tap.received += 0 if up else len(chunk)
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            pass  # one side has gone
        sink.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    tap.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/{path}"
    try:
        yield tap
    finally:
        server.close()
        await asyncio.gather(*(one for one in relays if one))  # they end with their clients
