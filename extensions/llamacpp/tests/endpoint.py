"""A real HTTP(S) server on loopback that answers as an OpenAI-compatible endpoint, well or badly, byte for byte.

Raw sockets and no framework: half of what it must do (a body cut short, a stream that stops) no framework would let it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Asked", "Endpoint", "chunk", "head", "reply", "sse", "streamed", "text_chunks"]


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Callable[["Endpoint", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Endpoint:
    """`answers` are used up one by one; the last one stays. `left` is set when a client closed its connection."""

    port: int = 0
    scheme: str = "http"
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    connections: int = 0

    @property
    def base_url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
        self.scheme = "https" if tls else "http"
        server = await asyncio.start_server(self._serve, host, 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ssl.SSLError):
            lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = lines[0].split(" ", 2)
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.asked.append(Asked(method, path, headers, body))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            gone = asyncio.create_task(reader.read())
            gone.add_done_callback(lambda _: self.left.set())
            try:
                await answer(self, writer)
                await writer.drain()
            finally:
                gone.cancel()
                writer.close()
                with contextlib.suppress(OSError, ssl.SSLError):
                    await writer.wait_closed()


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def reply(status: str, body: bytes | str = b"", *headers: str, kind: str = "application/json") -> Answer:
    """A whole answer."""
    data = body.encode() if isinstance(body, str) else body

    async def answer(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        lines = (f"Content-Type: {kind}", f"Content-Length: {len(data)}", "Connection: close", *headers)
        writer.write(head(status, *lines) + data)

    return answer


def chunk(text: str = "", **more: Any) -> dict[str, Any]:
    """One chunk of a stream, as OpenAI's reference has it."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": None, **more}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events)


def text_chunks(*pieces: str, usage: dict[str, Any] | None = None) -> bytes:
    """A complete, well-formed stream."""
    last = [chunk(finish_reason="stop")]
    if usage:
        last.append({**chunk(), "choices": [], "usage": usage})
    return sse(*(chunk(piece) for piece in pieces), *last, b"[DONE]")


def streamed(
    *parts: bytes, then: Callable[[Endpoint], Awaitable[Any]] | None = None, whole: bool = True, status: str = "200 OK"
) -> Answer:
    """A chunked event stream, `parts` one by one. `whole` False: the connection ends without the last chunk."""

    async def answer(endpoint: Endpoint, writer: asyncio.StreamWriter) -> None:
        writer.write(head(status, "Content-Type: text/event-stream", "Transfer-Encoding: chunked"))
        for part in parts:
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
        if then is not None:
            await then(endpoint)
        if whole:
            writer.write(b"0\r\n\r\n")

    return answer
