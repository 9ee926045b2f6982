"""What a kind of hub brings to the contract suite: a server on loopback that answers in its shapes, and what must come
of that. Each `hubcase_*.py` beside this file has a list `CASES`.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import anyio
import httpx
from anyio.abc import TaskGroup
from jan_registry.hubs.base import HubClient, open_hub
from jan_registry.hubs.http import Http
from jan_registry.local import open_local
from jan_registry.settings import SourceSetting

from jan_core import JanError
from jan_core.types import DownloadFile, ModelRecord, SourcePage, SourceQuery

SHAPES = Path(__file__).parent / "hub_shapes"
SECRET = "tok-0123456789-secret"


@dataclass
class Shape:
    """An answer. `headers` may hold `{base}`, as the body may: the address of the server."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def shape(path: str, **headers: str) -> Shape:
    """The answer in `hub_shapes/<path>`; `Link="…"` adds a header."""
    return Shape((SHAPES / path).read_bytes(), headers={k.replace("_", "-"): v for k, v in headers.items()})


def stored(folder: Path) -> bytes:
    """All that was written there."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def json_shape(value: Any, status: int = 200, **headers: str) -> Shape:
    return Shape(json.dumps(value).encode(), status, {k.replace("_", "-"): v for k, v in headers.items()})


@dataclass
class Asked:
    """A request that came. `query` has the last value of each name."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class HubServer:
    """A web server. `routes`: `/path` or `/path?name=value&…` (all of these must be asked for) to an answer, the first
    that fits; `reply`, when set, answers everything instead."""

    def __init__(self) -> None:
        self.routes: dict[str, Shape] = {}
        self.reply: Callable[[Asked], Shape] | None = None
        self.asked: list[Asked] = []
        self.connections = 0
        hub = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                hub.connections += 1
                super().setup()

            def do_GET(self) -> None:
                self.close_connection = True
                hub._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers)
        self.asked.append(asked)
        found = self.reply(asked) if self.reply else self._routed(asked)
        plain = "content-encoding" not in {name.lower() for name in found.headers}
        body = found.body.replace(b"{base}", self.url.encode()) if plain else found.body
        with suppress(BrokenPipeError, ConnectionResetError):
            request.send_response_only(found.status)
            for name, value in found.headers.items():
                request.send_header(name, value.replace("{base}", self.url))
            request.send_header("Content-Length", str(len(body)))
            request.send_header("Connection", "close")
            request.end_headers()
            request.wfile.write(body)

    def _routed(self, asked: Asked) -> Shape:
        for route, answer in self.routes.items():
            path, _, query = route.partition("?")
            if path == asked.path and all(asked.query.get(k) == v for k, v in parse_qsl(query)):
                return answer
        return Shape(b'{"error":"Not Found"}', 404)


@contextmanager
def hub_server(routes: Mapping[str, Shape] | None = None) -> Iterator[HubServer]:
    server = HubServer()
    server.routes = dict(routes or {})
    try:
        yield server
    finally:
        server.stop()


class Clock:
    """A time that passes when it is told to; seconds since the epoch."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Running:
    """Tasks of a group, which can be waited for."""

    def __init__(self, group: TaskGroup) -> None:
        self._group, self._left, self._idle = group, 0, anyio.Event()

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: str | None = None) -> None:
        async def run() -> None:
            try:
                await function(*args)
            finally:
                self._left -= 1
                if not self._left:
                    self._idle.set()

        self._left += 1
        self._idle = anyio.Event()
        self._group.start_soon(run, name=name)

    async def ended(self) -> None:
        if self._left:
            await self._idle.wait()


class Context:
    """As much of an extension's context as hubs use, around a real client and real tasks."""

    def __init__(self, client: httpx.AsyncClient, group: TaskGroup) -> None:
        self.http, self.tasks, self.log = client, Running(group), logging.getLogger("hubs under test")


class Desk:
    """Asks hubs as the extension does. `veto`: why the network must not be used."""

    def __init__(self, context: Any, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.clock = Clock()
        self.veto = ""
        self.database = open_local(folder)
        self.context = context
        self.http = Http(context, self.database, admit=self._admit, timeout=lambda: 10.0, now=self.clock)

    async def _admit(self, url: str) -> str:
        return self.veto

    def hub(self, setting: SourceSetting) -> HubClient:
        return open_hub(setting, self.http)


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    async with httpx.AsyncClient(trust_env=False, verify=False) as client, anyio.create_task_group() as tasks:
        one = Desk(Context(client, tasks), folder)
        try:
            with anyio.fail_after(60):
                yield one
        finally:
            tasks.cancel_scope.cancel()
            one.database.close()


async def answer(folder: Path, setting: SourceSetting, query: SourceQuery) -> SourcePage:
    """What a hub answers to one question. Raises what it raises, and not as part of a group."""
    failed: JanError | None = None
    async with desk(folder) as one:
        try:
            return await one.hub(setting).page(query)
        except JanError as error:
            failed = error
    raise failed


Listed = tuple[str, int, str, str]
"""A file: its name, its size, the beginning of its SHA-256, its role."""


@dataclass
class HubCase:
    """One hub. `routes` are its shapes; `url` what its setting's `url` is below the server's address.

    `ids`: all models in its list, in order; None when it cannot list. `search`: words, and the ids they find; None when
    it cannot search. `wanted`: the id of the model asked for, whose record must have `id` (`wanted` if empty) and
    `variants`; `unknown`: an id that it answers with nothing. `pin`: what every address of a file must hold, "" where
    the hub's cannot be pinned. `verified`: its records are.
    """

    name: str
    kind: str
    routes: Mapping[str, Shape]
    url: str = ""
    options: dict[str, str] = field(default_factory=dict)
    ids: list[str] | None = None
    search: tuple[str, list[str]] | None = None
    wanted: str = ""
    id: str = ""
    variants: dict[str, list[Listed]] = field(default_factory=dict)
    unknown: str = "acme/unknown"
    pin: str = ""
    verified: bool = False

    def setting(self, base: str, *, token: str = "") -> SourceSetting:
        options = {name: value.replace("{base}", base) for name, value in self.options.items()}
        return SourceSetting(self.name, self.kind, base + self.url, token=token, options=options)  # type: ignore[arg-type]

    def question(self) -> SourceQuery:
        """Something that it can answer."""
        return SourceQuery(id=self.wanted) if self.wanted else SourceQuery()

    def described(self, model: ModelRecord) -> dict[str, list[Listed]]:
        return {variant.id: [_listed(file) for file in variant.files] for variant in model.variants}


def _listed(file: DownloadFile) -> Listed:
    return file.name, file.size, file.sha256[:8], file.role


async def everything(hub: HubClient, limit: int = 2, text: str = "") -> list[ModelRecord]:
    """All pages of a hub's list, which must end."""
    models: list[ModelRecord] = []
    cursor = ""
    for _ in range(50):
        page: SourcePage = await hub.page(SourceQuery(text=text, limit=limit, cursor=cursor))
        models += page.models
        cursor = page.cursor
        if not cursor:
            return models
    raise AssertionError("the list does not end")
