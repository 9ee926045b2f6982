"""A web server with a list, and a host with the extension in it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from jan_registry.plugin import RegistryExtension

from jan_core.testing import InlineSource

Reply = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request under way; a reply function gets it and answers as it likes."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        web: Web = self.server.web
        self.close_connection = True
        web.requests.append({name.lower(): value for name, value in self.headers.items()})
        with suppress(BrokenPipeError, ConnectionResetError):
            web.reply(self)

    def answer(self, status: int, body: bytes = b"", **headers: object) -> None:
        self.send_response(status)
        for name, value in ({"Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


class Web:
    """A server on loopback that answers every request with `reply`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, str]] = []
        self.reply: Reply = lambda request: request.answer(404)
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        self._server.web = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/models.json"

    def serve(self, *models: dict[str, Any], etag: str = '"v1"', body: bytes | None = None) -> None:
        """Answer with a list, and with 304 to who has it."""
        content = json.dumps({"version": 1, "models": models}).encode() if body is None else body

        def reply(request: Request) -> None:
            if request.headers.get("If-None-Match") == etag:
                request.answer(304, ETag=etag)
            else:
                request.answer(200, content, ETag=etag, Content_Type="application/json")

        self.reply = reply

    def stop(self) -> None:
        if self._thread.is_alive():
            self.released.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.stop()


def model(id: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "name": id.title(), "featured": True} | fields


class House:
    """A host with the extension, and its events."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.client = host.client()
        self.data_dir: Path = host.data_dir / "registry"
        self.events: list[dict[str, Any]] = []
        self._changed = anyio.Event()

    def hear(self, event: Any) -> None:
        if event.name == "registry.changed":
            self.events.append(event.data)
            self._changed.set()

    async def changed(self) -> None:
        with anyio.fail_after(10):
            await self._changed.wait()
        self._changed = anyio.Event()

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(f"registry.{method}", params)

    async def ids(self) -> tuple[str, list[str]]:
        """Where the recommended models come from, and their ids."""
        answer = await self.call("featured")
        return answer["provenance"]["origin"], [model["id"] for model in answer["models"]]


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]


def no_network() -> httpx.AsyncClient:
    raise AssertionError("the network was used")


@pytest.fixture
def open_house(open_host: Any, tmp_path: Path) -> OpenHouse:
    """`open_house(*other extensions, url=…, http=…)`: no background refresh unless `refresh_seconds` is given."""

    @asynccontextmanager
    async def opener(*others: object, http: Any = None, **settings: Any) -> AsyncIterator[House]:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        (data_dir / "settings.json").write_text(json.dumps({"registry": {"refresh_seconds": 0} | settings}))
        sources = [InlineSource("registry", RegistryExtension, ["registry."])]
        sources += [InlineSource(f"other{i}", other) for i, other in enumerate(others)]
        async with httpx.AsyncClient(trust_env=False) as client:
            async with open_host(sources=sources, data_dir=data_dir, http=http or (lambda: client)) as host:
                house = House(host)
                with host.bus.subscribe(house.hear):
                    yield house

    return opener
