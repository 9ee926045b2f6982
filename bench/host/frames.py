"""The requests every server is sent, as files the C client reads.

A file is a row of frames: [u32 length][u8 is answered][u32 id][bytes]. Every kind of server is asked for the same in
its own words (`Dialect`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "FIRST_ID",
    "HOUSE",
    "LSP",
    "MCP",
    "PLAIN",
    "STREAM_ITEMS",
    "Dialect",
    "Framing",
    "Payload",
    "framed",
    "params",
    "requests",
    "text",
    "write",
]

Framing = Literal["lines", "headers"]
Payload = Literal["small", "64 KiB"]
Message = dict[str, Any]

STREAM_ITEMS = 10_000
"""Notifications for each streaming request, of about 80 bytes."""

FIRST_ID, SMALL_COUNT, LARGE_COUNT = 1000, 40_000, 96
_SMALL: dict[str, Any] = {
    "session": "s-0001",
    "op": "gen",
    "text": 'héllo "wörld"\nline two',
    "temperature": 0.7,
    "top": 40,
    "flags": [1, 2, 3],
}
_PROSE = 'The quick brown fox — «jumps» over the lazy dog, said "Zoë".\n\tNext: x = 3.14; '


@dataclass(frozen=True)
class Dialect:
    """How a kind of server is greeted, and asked for `echo` or `stream` with some params."""

    hello: tuple[Message, ...]
    ask: Callable[[str, Any], tuple[str, Any]]


def _tool(name: str, arguments: Any) -> tuple[str, Any]:
    return "tools/call", {"name": name, "arguments": arguments, "_meta": {"progressToken": "17"}}


def _request(method: str, params: Any) -> Message:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


_CLIENT = {"name": "bench", "version": "1"}
PLAIN = Dialect((), lambda name, params: (name, params))
LSP = Dialect(
    (
        _request("initialize", {"processId": None, "rootUri": None, "capabilities": {}}),
        {"jsonrpc": "2.0", "method": "initialized", "params": {}},
    ),
    lambda name, params: (name, params),
)
MCP = Dialect(
    (
        _request("initialize", {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": _CLIENT}),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ),
    _tool,
)
HOUSE = Dialect(
    (
        _request("initialize", {"protocolVersion": "1.0", "clientInfo": _CLIENT}),
        {"jsonrpc": "2.0", "method": "initialized", "params": {}},
    ),
    lambda name, params: (f"bench.{name}", params),
)


def text(message: Any) -> bytes:
    """JSON as a client writes it: UTF-8, no spaces."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()


def framed(message: Message, framing: Framing) -> bytes:
    """One message, ready for the stream."""
    body = text(message)
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body) if framing == "headers" else body + b"\n"


def params(payload: Payload) -> dict[str, Any]:
    """What `echo` is sent: 112 bytes of JSON, or 64 KiB with escapes and letters beyond ASCII in it."""
    if payload == "small":
        return _SMALL
    length = 65_536 // len(_PROSE.encode()) * len(_PROSE)
    large = {**_SMALL, "text": (_PROSE * (length // len(_PROSE) + 1))[:length]}
    while (excess := len(text(large)) - 65_536) > 0:
        length -= max(1, excess // 2)
        large["text"] = large["text"][:length]
    return large


def requests(dialect: Dialect, name: str, payload: Any, count: int) -> list[Message]:
    """`count` requests with ids of their own."""
    method, params = dialect.ask(name, payload)
    return [{"jsonrpc": "2.0", "id": FIRST_ID + n, "method": method, "params": params} for n in range(count)]


def write(path: Path, framing: Framing, messages: Iterable[Message]) -> None:
    """Write a file of frames."""
    with path.open("wb") as file:
        for message in messages:
            frame = framed(message, framing)
            id = message.get("id")
            file.write(struct.pack("<IBI", len(frame), id is not None, id or 0) + frame)
