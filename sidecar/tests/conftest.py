"""What the tests of the sidecar share: the local API on a real socket, and the command line as a real process."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jan_sidecar.cli.app import run
from jan_sidecar.http.server import Listening, ServeOptions, serve

from jan_core.host import Host
from jan_core.testing import InlineSource

from .house import open_house
from .scripted import METHODS, ScriptedEngine

LIMIT = 60.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that runs in this process logs to a file of its own; the next test's log is its own again."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()


@dataclass
class Api:
    """A running local API."""

    engine: ScriptedEngine
    listening: Listening
    loop: asyncio.AbstractEventLoop
    stop_event: asyncio.Event
    thread: threading.Thread

    @property
    def base_url(self) -> str:
        return f"{self.listening.url}/v1"

    @property
    def port(self) -> int:
        return self.listening.port

    def stop(self) -> None:
        """What SIGTERM does to `jan serve`."""
        self.loop.call_soon_threadsafe(self.stop_event.set)


ServeApi = Callable[..., Any]


@pytest.fixture(scope="session")
def serve_api(tmp_path_factory: pytest.TempPathFactory) -> ServeApi:
    """`with serve_api(**options) as api:` runs the local API over a host with the scripted engine."""

    @contextmanager
    def run(**options: Any) -> Iterator[Api]:
        engine = ScriptedEngine()
        ready = threading.Event()
        made: list[Api] = []
        failures: list[BaseException] = []
        data = tmp_path_factory.mktemp("data")

        async def main() -> None:
            stop = asyncio.Event()

            def listening(where: Listening) -> None:
                made.append(Api(engine, where, asyncio.get_running_loop(), stop, thread))
                ready.set()

            async with Host(data, sources=[InlineSource("scripted", engine, METHODS)]) as host:
                try:
                    chosen = ServeOptions(**{"port": 0, **options})
                    await serve(host.client("http"), chosen, stop=stop, on_listening=listening)
                except Exception as error:
                    failures.append(error)
                    ready.set()

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        assert ready.wait(LIMIT)
        if failures:
            thread.join(LIMIT)
            raise failures[0]
        api = made[0]
        try:
            yield api
        finally:
            if thread.is_alive():
                api.stop()
            thread.join(LIMIT)
        assert not thread.is_alive(), "the server did not end"
        assert not failures, failures

    return run


@pytest.fixture(scope="session")
def shared_api(serve_api: ServeApi) -> Iterator[Api]:
    with serve_api() as running:
        yield running


@pytest.fixture
def api(shared_api: Api) -> Api:
    """The local API as it runs by default; the server is shared between tests, what it remembers is not."""
    shared_api.engine.forget()
    return shared_api


Jan = Callable[..., subprocess.CompletedProcess[bytes]]
PROGRAM = [sys.executable, str(Path(__file__).with_name("jan_scripted.py"))]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A process's environment with a data folder of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("JAN_", "COLUMNS", "LINES"))}
    return {**kept, "JAN_DATA_DIR": str(tmp_path / "data"), "PYTHONWARNINGS": "error", "TERM": "xterm"}


@pytest.fixture
def jan_process(environment: dict[str, str]) -> Jan:
    """`jan_process("chat", "say hello")`: the command line in a process of its own, without a terminal."""

    def run_process(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PROGRAM, *arguments], input=stdin, capture_output=True, env=environment, timeout=LIMIT * 2, check=False
        )

    return run_process


@pytest.fixture
def jan(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Jan:
    """The same in this process, which is quicker: for what does not need signals, descriptors or a log."""

    def run_here(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        output, errors = io.BytesIO(), io.BytesIO()
        with monkeypatch.context() as patch:
            patch.setenv("JAN_DATA_DIR", environment["JAN_DATA_DIR"])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", io.TextIOWrapper(output, "utf-8", newline="\n"))
            patch.setattr(sys, "stderr", io.TextIOWrapper(errors, "utf-8", newline="\n"))
            status = run(arguments, open_house)
            sys.stdout.flush()
            sys.stderr.flush()
            return subprocess.CompletedProcess(arguments, status, output.getvalue(), errors.getvalue())

    return run_here


@dataclass
class FileServer:
    """Files over HTTP on this machine."""

    url: str
    content: bytes
    sha256: str


@pytest.fixture
def file_server() -> Iterator[FileServer]:
    """Serves the same content under every name but `/missing.gguf`."""
    import hashlib
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    content = bytes(range(256)) * 1000

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/missing.gguf":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield FileServer(f"http://127.0.0.1:{server.server_port}", content, hashlib.sha256(content).hexdigest())
        server.shutdown()
        thread.join(LIMIT)
