"""A web server that misbehaves on demand, and a host with the extension in it."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anyio
import pytest
from jan_download.plugin import DownloadExtension

from jan_core.testing import InlineSource

from .faultserver import FaultServer
from .nginx import nginx

__all__ = ["nginx"]

Reply = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request under way; a reply function gets it and answers as it likes."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        web: Web = self.server.web
        self.close_connection = True
        with web.lock:
            web.requests.append((self.path, {n.lower(): v for n, v in self.headers.items()}))
            replies = web.routes.get(self.path.partition("?")[0])
            reply = (replies.pop(0) if len(replies) > 1 else replies[0]) if replies else error(404)
            web.arrived.notify_all()
        with suppress(BrokenPipeError, ConnectionResetError):
            reply(self)

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def drop(self) -> None:
        """Cut the connection without another byte."""
        import socket

        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def asked(self) -> int:
        """Where the Range of this request begins; 0 without one."""
        value = self.headers.get("Range", "bytes=0-")
        return int(value.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, *args: object) -> None:
        pass


class Web:
    """A server on loopback. Each path has replies that are used up one by one; the last one stays."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.arrived = threading.Condition(self.lock)
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.routes: dict[str, list[Reply]] = {}
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._server.daemon_threads = True
        self._server.web = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def url(self, path: str = "/file", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self._server.server_port}{path}"

    def on(self, *replies: Reply, path: str = "/file") -> str:
        self.routes[path] = list(replies)
        return self.url(path)

    def headers(self, name: str, path: str = "/file") -> list[str | None]:
        """The values of a header in the requests for a path, in order."""
        name = name.lower()
        return [headers.get(name) for at, headers in self.requests if at.partition("?")[0] == path]

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def error(status: int, **headers: object) -> Reply:
    return lambda request: request.head(status, Content_Length=0, **headers)


def redirect(to: str, status: int = 302) -> Reply:
    return lambda request: request.head(status, Location=to, Content_Length=0)


def whole(data: bytes, *, etag: str = '"v1"', drop_at: int | None = None, hold_at: int | None = None) -> Reply:
    """A proper server for one file: ranges and If-Range.

    `drop_at`: cut the connection at this offset of the file; `hold_at`: wait there until the test releases it.
    """

    def reply(request: Request) -> None:
        start = request.asked()
        condition = request.headers.get("If-Range")
        if condition is not None and condition != etag:
            start = 0
        if start:
            where = f"bytes {start}-{len(data) - 1}/{len(data)}"
            request.head(206, Content_Length=len(data) - start, Content_Range=where, ETag=etag)
        else:
            request.head(200, Content_Length=len(data), ETag=etag, Accept_Ranges="bytes")
        stop = drop_at if drop_at is not None else hold_at
        request.wfile.write(data[start : stop if stop is not None else len(data)])
        if drop_at is not None:
            request.drop()
        elif hold_at is not None:
            request.wfile.flush()
            request.server.web.released.wait(30)
            request.wfile.write(data[max(start, hold_at) :])

    return reply


def rangeless(data: bytes, *, drop_at: int | None = None, **headers: object) -> Reply:
    """A server that knows no ranges: 200 and everything, always."""

    def reply(request: Request) -> None:
        request.head(200, Content_Length=len(data), **headers)
        request.wfile.write(data[:drop_at])
        if drop_at is not None:
            request.drop()

    return reply


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def content(job: dict[str, Any]) -> bytes:
    """What stands under the name of a complete download."""
    return Path(job["path"]).read_bytes()


@pytest.fixture(scope="session")
def data() -> bytes:
    return random.Random(7).randbytes(3_000_000)


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    yield server
    server.close()


@pytest.fixture(scope="session")
def big() -> bytes:
    """Enough for several pieces of the usual length and several connections."""
    return random.Random(11).randbytes(40_000_000)


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as one:
        yield one


@pytest.fixture
def serve_more() -> Iterator[Callable[..., FaultServer]]:
    """Makes further servers, each with a port of its own."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(FaultServer(*args, **options))


@pytest.fixture(autouse=True)
def nobody_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the models that this machine's user has are looked at, nor the proxies and tokens used."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE", "APPDATA", "LOCALAPPDATA", "XDG_DATA_HOME", "XDG_CONFIG_HOME",
                 "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "OLLAMA_MODELS",
                 "LLAMA_CACHE", "LMSTUDIO_HOME", "JAN_DATA_FOLDER"):  # fmt: skip
        monkeypatch.setenv(name, str(home))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "hf_token"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class House:
    """A host with the extension, its events, and ways to wait for them."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.client = host.client()
        self.data_dir: Path = host.data_dir / "download"
        self.events: list[dict[str, Any]] = []
        self._changed = anyio.Event()

    def hear(self, event: Any) -> None:
        if event.name == "downloads.changed":
            self.events.append(event.data)
            self._changed.set()
            self._changed = anyio.Event()

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(f"downloads.{method}", params)

    async def start(self, url: str, data: bytes | None = None, **params: Any) -> Any:
        file: dict[str, Any] = {"name": "model.gguf", "url": url}
        if data is not None:
            file |= {"sha256": sha256(data), "size": len(data)}
        return await self.call("start", file=file, **params)

    async def until(self, job_id: str, *states: str, done: int = 0) -> dict[str, Any]:
        """Wait until a job was seen in one of `states` (with at least `done` bytes)."""
        with anyio.fail_after(20):
            while True:
                changed = self._changed
                job: dict[str, Any] = await self.call("get", id=job_id)
                if job["state"] in states and job["bytes_done"] >= done:
                    return job
                await changed.wait()


OpenHouse = Callable[..., AbstractAsyncContextManager[House]]
SETTINGS = {"reserve_bytes": 0, "retry_first": 0.02, "retry_longest": 0.05}


@pytest.fixture
def open_house(open_host: Any, tmp_path: Path) -> OpenHouse:
    @asynccontextmanager
    async def opener(*others: object, **settings: Any) -> AsyncIterator[House]:
        data_dir = tmp_path / "data"
        data_dir.mkdir(exist_ok=True)
        (data_dir / "settings.json").write_text(json.dumps({"download": SETTINGS | settings}))
        sources = [InlineSource("download", DownloadExtension, ["downloads."])]
        sources += [InlineSource(f"other{i}", other) for i, other in enumerate(others)]
        async with open_host(sources=sources, data_dir=data_dir) as host:
            house = House(host)
            with host.bus.subscribe(house.hear):
                yield house

    return opener
