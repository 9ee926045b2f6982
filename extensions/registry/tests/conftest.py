"""A web server that answers as a test likes, and a host with the extension in it. Real hubs: `hubmaker.py`."""

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

from .hubmaker import Hub

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
        for name, value in ({"Content_Length": len(body), "Connection": "close"} | headers).items():
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
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def serve(self, folder: Path) -> None:
        """Answer with the files of a folder."""

        def reply(request: Request) -> None:
            path = folder / request.path.lstrip("/")
            if path.is_file():
                request.answer(200, path.read_bytes())
            else:
                request.answer(404)

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


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """A hub with nothing in it yet."""
    return Hub(tmp_path)


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
def open_house(open_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenHouse:
    """`open_house(*other extensions, hub=…, http=…, **settings)`: no background refresh unless `refresh_seconds` is
    given; `hub` names a hub of the tests, by its folder unless `url` says otherwise. `packaged`: what was shipped."""

    @asynccontextmanager
    async def opener(
        *others: object, hub: Hub | None = None, http: Any = None, packaged: Path | None = None, **settings: Any
    ) -> AsyncIterator[House]:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        monkeypatch.setattr("jan_registry.catalogue.PACKAGED", packaged or tmp_path / "nothing-shipped")
        monkeypatch.setattr("jan_registry.services.SETTLE", 0.0)
        if hub is not None:
            root = tmp_path / f"{hub.tree.name}.root.json"
            root.write_bytes(hub.root)
            settings = {"url": hub.url, "root": str(root)} | settings
        (data_dir / "settings.json").write_text(json.dumps({"registry": {"refresh_seconds": 0} | settings}))
        sources = [InlineSource("registry", RegistryExtension, ["registry."])]
        sources += [
            other if isinstance(other, InlineSource) else InlineSource(f"other{i}", other)
            for i, other in enumerate(others)
        ]
        async with httpx.AsyncClient(trust_env=False) as client:
            async with open_host(sources=sources, data_dir=data_dir, http=http or (lambda: client)) as host:
                house = House(host)
                with host.bus.subscribe(house.hear):
                    yield house

    return opener
