"""One streamed chat completion over HTTP, read as cheaply as Python can: the client shares its cores with the server.

The same client for every server. It times the moments at which text arrives, and looks at every event.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field

import msgspec

__all__ = ["Answer", "AnswerError", "ask"]

SAME = 0.0002
"""Text that comes within this of the text before it came with it: in one frame, or one read."""


class AnswerError(Exception):
    """A server did not answer as it must."""


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


@dataclass
class Answer:
    """`arrivals`: when text came, in seconds of `time.perf_counter`; `began`: when it was asked for. `events`: pieces
    of text. Token counts are the server's own, 0 where it gives none; `cached`, `drafted` and `accepted` are told by
    our worker alone.
    """

    began: float
    arrivals: list[float] = field(default_factory=list)
    ended: float = 0.0
    texts: list[str] = field(default_factory=list)
    events: int = 0
    prompt: int = 0
    completion: int = 0
    cached: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.arrivals[0] - self.began

    @property
    def gaps(self) -> list[float]:
        """Seconds between moments at which text came."""
        return [later - earlier for earlier, later in zip(self.arrivals, self.arrivals[1:], strict=False)]

    def arrived(self, text: str, now: float) -> None:
        self.texts.append(text)
        self.events += 1
        if not self.arrivals or now - self.arrivals[-1] > SAME:
            self.arrivals.append(now)


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self._request = request
        self.answer = Answer(time.perf_counter())
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.BaseTransport | None = None
        self._raw = bytearray()  # of the connection
        self._body = bytearray()  # without the chunks' frames
        self._left: int | None = None  # bytes of the current chunk and its line end; None: the headers

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._raw += data
        try:
            self._unframe()
            *events, rest = self._body.replace(b"\r\n", b"\n").split(b"\n\n")
            self._body = rest
            for event in events:
                self._event(event, now)
        except (AnswerError, msgspec.DecodeError, ValueError) as error:
            self._end(AnswerError(f"{error}: {bytes(self._raw[:300])!r}"))

    def connection_lost(self, error: Exception | None) -> None:
        self._end(AnswerError(f"the connection was lost: {error}; {bytes(self._raw[-300:])!r}"))

    def _unframe(self) -> None:
        """Move what is whole of `_raw` to `_body` (RFC 9112, chapter 7.1; no trailers)."""
        if self._left is None:
            head, found, rest = self._raw.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 200 " not in head.partition(b"\r\n")[0] or b"chunked" not in head.lower():
                raise AnswerError("no stream")
            self._raw, self._left = rest, 0
        while self._raw:
            if self._left == 0:
                size, found, rest = self._raw.partition(b"\r\n")
                if not found:
                    return
                self._raw, self._left = rest, int(size.partition(b";")[0], 16) + 2
                continue
            part = self._raw[: self._left]
            del self._raw[: len(part)]
            # The last two bytes of a chunk are its line end; they may come alone.
            self._body += part[: max(0, self._left - 2)]
            self._left -= len(part)

    def _event(self, event: bytearray, now: float) -> None:
        if not event.startswith(b"data: "):
            return  # a comment that keeps the connection alive
        if event == b"data: [DONE]":
            self.answer.ended = now
            self._end(None)
            return
        chunk = _decode(event[6:])
        for choice in chunk.choices:
            text = choice.text or (choice.delta.content if choice.delta else None)
            if text:
                self.answer.arrived(text, now)
        if chunk.usage is not None:
            self.answer.prompt, self.answer.completion = chunk.usage.prompt_tokens, chunk.usage.completion_tokens

    def _end(self, error: AnswerError | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
        if self._transport is not None:
            self._transport.close()


async def ask(port: int, body: dict[str, object], path: str = "/v1/chat/completions") -> Answer:
    """Ask a server on this machine. Raises AnswerError, OSError."""
    content = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    ).encode() + content
    connection = _Connection(request)
    await asyncio.get_running_loop().create_connection(lambda: connection, "127.0.0.1", port)
    await connection.done
    return connection.answer
