"""Runs the local API on uvicorn, on sockets bound here, until told to stop; then drains.

Signals are the caller's business: whoever runs the process decides what stops it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import uvicorn

from jan_core import Caller

from .access import (
    NATIVE_ORIGINS,
    Access,
    AccessError,
    Keys,
    allowed_hosts,
    allowed_origins,
    is_loopback,
    read_keys,
)
from .protocol import BoundedHttp
from .routes import make_app
from .sse import Flights

__all__ = ["Listening", "ServeError", "ServeOptions", "serve"]

EXCLUSIVE = getattr(socket, "SO_EXCLUSIVEADDRUSE", 0)
"""On Windows, SO_REUSEADDR would let another process take over a port that is being served."""

GRACE = 10.0
"""Seconds that answers under way get to finish when the server must stop."""


class ServeError(Exception):
    """The server cannot start; the message is one line for the person."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the person asked for. Port 0 takes any free one."""

    host: str = "127.0.0.1"
    port: int = 1337
    api_key_file: Path | None = None
    allowed_hosts: Sequence[str] = ()
    cors_origins: Sequence[str] = ()
    grace: float = GRACE
    body_limit: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Listening:
    """Told once the sockets accept. `warnings` are for the person."""

    url: str
    port: int
    warnings: Sequence[str] = ()


class Server(uvicorn.Server):
    """uvicorn's server without its own signal handling, which would end the process before the host is closed."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    caller: Caller, options: ServeOptions, *, stop: asyncio.Event, on_listening: Callable[[Listening], None]
) -> None:
    """Serve until `stop` is set, then finish what is under way for `options.grace` seconds and end the rest.

    Raises ServeError (port taken, address unknown) and AccessError (unsafe: not loopback and no key).
    """
    keys, warnings = read_keys(options.api_key_file) if options.api_key_file else (Keys(), [])
    addresses = await _resolve(options.host)
    if not keys and (exposed := [a for a in addresses if not is_loopback(a)]):
        raise AccessError(
            f"{exposed[0]} can be reached from other machines, so an API key is needed: --api-key-file FILE"
        )
    sockets = _bind(addresses, options.port)
    try:
        port = sockets[0].getsockname()[1]
        access = Access(
            hosts=allowed_hosts(port, addresses, options.allowed_hosts),
            origins=frozenset(NATIVE_ORIGINS),
            cors=allowed_origins(options.cors_origins),
            keys=keys,
            body_limit=options.body_limit,
        )
        flights = Flights()
        server = Server(
            uvicorn.Config(
                make_app(caller, access, flights),
                http=BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(options.grace) + 2,
                backlog=512,
            )
        )
        stopping = asyncio.create_task(_stop(server, flights, stop, options.grace))
        try:
            shown = ipaddress.ip_address(addresses[0])
            name = f"[{shown}]" if shown.version == 6 else str(shown)
            on_listening(Listening(f"http://{name}:{port}", port, warnings))
            await server.serve(sockets)
        finally:
            stopping.cancel()
            with anyio.CancelScope(shield=True):
                await _leave(server, flights)
    finally:
        for sock in sockets:
            sock.close()


async def _stop(server: Server, flights: Flights, stop: asyncio.Event, grace: float) -> None:
    await stop.wait()
    server.should_exit = True
    await asyncio.sleep(grace)
    flights.end()


async def _leave(server: Server, flights: Flights) -> None:
    """What is left when the server was cancelled rather than stopped: end it at once, so that nothing outlives it."""
    flights.end()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    if tasks := list(server.server_state.tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=1)


async def _resolve(host: str) -> list[str]:
    """The addresses behind a name, as literals; `localhost` is both loopbacks, as far as this machine has them."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise ServeError(f"{host!r} is not an address of this machine") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in sorted(found, key=lambda e: e[0] != socket.AF_INET)))


def _bind(addresses: list[str], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            sock = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(sock)
            if os.name == "posix":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, EXCLUSIVE, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                sock.bind((address, port if len(sockets) == 1 else sockets[0].getsockname()[1]))
                # Listening now, not later: two sockets may be bound to one port, but only one may listen.
                sock.listen(512)
            except OSError as error:
                if len(sockets) > 1 and error.errno == errno.EADDRNOTAVAIL:
                    sockets.pop().close()  # a name for both families on a machine that has only one
                    continue
                raise ServeError(_bind_failure(address, port, error)) from None
            sock.setblocking(False)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_failure(address: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is taken; stop what uses it, or choose another: jan serve --port {port + 1}"
        case errno.EACCES:
            return f"port {port} needs privileges; choose one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"{address} is not an address of this machine"
    return f"cannot listen on {address} port {port}: {error.strerror}"
