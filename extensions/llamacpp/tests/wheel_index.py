"""A package index on loopback, with a server's usual faults on demand, and wheels packed from an installed engine."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from jan_llamacpp.engines.builds import ENGINE_VERSION
from packaging.tags import sys_tags

PLATFORM = next(sys_tags()).platform


class Fault(NamedTuple):
    """What happens to the next answers of a path. `cut`: the connection ends after so many bytes; `hold`: nothing comes
    after them until the server is released; `status`, `page`: answered instead; `times`: how often."""

    status: int = 0
    cut: int | None = None
    hold: int | None = None
    page: bytes = b""
    location: str = ""
    times: int = 1


class WheelIndex:
    """Serves `files` by path, with ranges and entity tags. `asked`: (path, the Range header or "") of each request."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, str]] = {}
        self.faults: dict[str, list[Fault]] = {}
        self.asked: list[tuple[str, str]] = []
        self.etags = True
        self.ranges = True
        self.holding = threading.Event()
        self.released = threading.Event()
        self.url = ""

    def add(self, path: str, data: bytes, type: str = "application/octet-stream") -> str:
        self.files[path] = (data, type)
        return self.url + path

    def offer(self, index: str, wheel: Path, *, hashed: bool = True, name: str = "") -> str:
        """Put a wheel into the index `index`; returns the wheel's address."""
        filename = name or wheel.name
        data = wheel.read_bytes()
        path = f"/files/{index}/{filename}"
        fragment = f"#sha256={hashlib.sha256(data).hexdigest()}" if hashed else ""
        page = f'<!DOCTYPE html><html><body><a href="{path}{fragment}">{filename}</a></body></html>'
        self.add(f"/whl/{index}/llama-cpp-python/", page.encode(), "text/html; charset=utf-8")
        return self.add(path, data)

    def fail(self, path: str, **fault: object) -> None:
        one = Fault(**fault)  # type: ignore[arg-type]
        self.faults.setdefault(path, []).extend([one] * one.times)

    def fetched(self, ending: str = ".whl") -> list[str]:
        """The Range headers of the requests for such files."""
        return [ranges for path, ranges in self.asked if path.endswith(ending)]


@contextmanager
def serving() -> Iterator[WheelIndex]:
    """A running index."""
    index = WheelIndex()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

        def do_GET(self) -> None:
            index.asked.append((self.path, self.headers.get("Range", "")))
            faults = index.faults.get(self.path)
            fault = faults.pop(0) if faults else Fault()
            try:
                _answer(self, index, fault)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield index
        finally:
            index.released.set()
            server.shutdown()
            thread.join()


def _answer(handler: BaseHTTPRequestHandler, index: WheelIndex, fault: Fault) -> None:
    if fault.status:
        handler.send_response(fault.status)
        if fault.location:
            handler.send_header("Location", fault.location)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return
    if fault.page:
        data, kind = fault.page, "text/html"
    elif handler.path in index.files:
        data, kind = index.files[handler.path]
    else:
        handler.send_error(404)
        return
    etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
    wanted = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    whole = handler.headers.get("If-Range", etag) != etag
    first = int(wanted[1]) if wanted and index.ranges and not whole else 0
    if first > len(data):
        handler.send_error(416)
        return
    handler.send_response(206 if first else 200)
    if first:
        handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
    if index.etags:
        handler.send_header("ETag", etag)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data) - first))
    handler.end_headers()
    end = min([first + n for n in (fault.cut, fault.hold) if n is not None], default=len(data))
    handler.wfile.write(data[first:end])
    handler.wfile.flush()
    if fault.hold is not None:
        index.holding.set()
        index.released.wait()
    handler.close_connection = True


def pack(
    engine: Path,
    folder: Path,
    *,
    version: str = ENGINE_VERSION,
    platform: str = PLATFORM,
    spoil: str = "",
    spoil_bindings: str = "",
) -> Path:
    """A wheel of an installed engine. `version`: what it says it is, a local one (`+cu124`) in its name only.

    `spoil` is code before the package's own, `spoil_bindings` code after its bindings.
    """
    public = version.partition("+")[0]
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"llama_cpp_python-{version}-py3-none-{platform}.whl"
    old, info = f"llama_cpp_python-{ENGINE_VERSION}.dist-info", f"llama_cpp_python-{version}.dist-info"
    files = {}
    for top, named in (("llama_cpp", "llama_cpp"), (old, info)):
        for file in (engine / top).rglob("*"):
            if (
                file.is_file()
                and "__pycache__" not in file.parts
                and file.name not in ("RECORD", "INSTALLER", "REQUESTED")
            ):
                files[f"{named}/{file.relative_to(engine / top).as_posix()}"] = file.read_bytes()
    init, meta = "llama_cpp/__init__.py", f"{info}/METADATA"
    files[init] = spoil.encode() + files[init].replace(ENGINE_VERSION.encode(), public.encode())
    files["llama_cpp/llama_cpp.py"] += spoil_bindings.encode()
    files[meta] = files[meta].replace(f"\nVersion: {ENGINE_VERSION}".encode(), f"\nVersion: {version}".encode())
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(data)}")
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return wheel
