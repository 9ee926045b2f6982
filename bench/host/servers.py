"""The servers that are compared, each a process of this interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from frames import HOUSE, LSP, MCP, PLAIN, STREAM_ITEMS, Dialect, Framing

__all__ = ["SERVERS", "Server", "available", "missing"]

PEERS = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Server:
    """One row. `echo` and `stream`: what it is asked for, "" where it does not offer that. `checked`: it answers in
    JSON-RPC, and its answers are looked at. `distribution`: the package it needs, which may be missing."""

    name: str
    command: tuple[str, ...]
    dialect: Dialect = PLAIN
    framing: Framing = "lines"
    echo: str = "echo"
    stream: str = "stream"
    checked: bool = True
    distribution: str = ""


def _python(script: str, *arguments: str, options: tuple[str, ...] = ()) -> tuple[str, ...]:
    return sys.executable, *options, str(PEERS / script), *arguments


_BARE = ("-I", "-S")
RAW, RAW_STREAM, JSON = "raw Python pipe", "raw Python, one write an item", "stdlib json loop"
PYLSP, PYGLS, PYGLS_ASYNC, SDK = "python-lsp-jsonrpc", "pygls, sync", "pygls, async", "mcp"
SYNC, HEADERS, ASYNC, THREADS = "ours, sync", "ours, sync, headers", "ours, async", "ours, sync, threads"

SERVERS = (
    Server(RAW, _python("raw_pipe.py", "echo", options=_BARE), stream="", checked=False),
    Server(RAW_STREAM, _python("raw_pipe.py", "stream", str(STREAM_ITEMS), options=_BARE), echo=""),
    Server(JSON, _python("json_loop.py")),
    Server(PYLSP, _python("lsp_jsonrpc.py"), framing="headers", distribution="python-lsp-jsonrpc"),
    Server(PYGLS, _python("pygls_server.py"), LSP, "headers", distribution="pygls"),
    Server(PYGLS_ASYNC, _python("pygls_server.py"), LSP, "headers", "echo_async", "", distribution="pygls"),
    Server(SDK, _python("mcp_server.py"), MCP, distribution="mcp"),
    Server(SYNC, _python("house.py"), HOUSE),
    Server(HEADERS, _python("house.py"), HOUSE, "headers"),
    Server(ASYNC, _python("house.py"), HOUSE, echo="echo_async", stream=""),
    Server(THREADS, _python("house.py", "threads"), HOUSE),
)


def available() -> Iterator[Server]:
    """The servers whose packages are installed."""
    return (server for server in SERVERS if not server.distribution or _version(server.distribution))


def missing() -> list[str]:
    """The packages that are not."""
    return sorted({s.distribution for s in SERVERS if s.distribution and not _version(s.distribution)})


def versions() -> dict[str, str]:
    """The packages that are, with their versions."""
    return {s.distribution: found for s in SERVERS if s.distribution and (found := _version(s.distribution))}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
