"""A real hub for tests: keys, a signed tree, and Debian's nginx to serve it.

from .hubmaker import Hub, nginx  # noqa: F401  (a fixture is found by its name)
"""

from __future__ import annotations

import hashlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from jan_registry.collections import canonical
from jan_registry.publish import tree as publishing
from jan_registry.publish.keys import Keys, generate
from jan_registry.publish.plan import Published
from jan_registry.publish.roles import DELEGATED, OFFLINE, ONLINE, RoleKeys

PATIENCE = 20.0
"""Seconds until nginx must have begun to listen, or have ended."""


def key(name: str) -> Any:
    """A signer that is the same in every run."""
    return generate(hashlib.sha256(name.encode()).digest())


def model(id: str, **fields: Any) -> dict[str, Any]:
    """A record of `models` with one file of one gigabyte."""
    sha256 = hashlib.sha256(id.encode()).hexdigest()
    return {
        "id": id,
        "schema": 1,
        "name": id.rpartition("/")[2].title(),
        "license": "apache-2.0",
        "variants": [{"id": "q4_k_m", "format": "gguf", "quant": "Q4_K_M", "files": [0]}],
        "files": [
            {
                "path": "model.gguf",
                "role": "weights",
                "size": 1_000_000_000,
                "sha256": sha256,
                "sources": [{"kind": "https", "url": f"https://files.test/{id}/model.gguf"}],
            }
        ],
    } | fields


class Hub:
    """A hub in `folder`: root and targets 2 of 3 keys, every other role one. Its keys are the same in every run.

    `set(collection, records)` or `models(…)`, then `publish()`; what was not set stays as it is. `tree` is what a web
    server would serve, `url` the same as `file://`, `root` the bytes of the first root.
    """

    def __init__(self, folder: Path, *, name: str = "hub", now: float | None = None) -> None:
        self.tree = folder / name
        self.pending, self.pieces = folder / f"{name}-pending", folder / f"{name}-pieces"
        self.signers = {
            role: [key(f"{name} {role} {number}") for number in range(3 if role in OFFLINE else 1)]
            for role in (*OFFLINE, *DELEGATED, *ONLINE)
        }
        self.collections: dict[str, list[bytes]] = {}
        publishing.create(self.tree, self.roles, self.keys, now=time.time() if now is None else now)
        self.root = (self.tree / "metadata" / "1.root.json").read_bytes()

    @property
    def keys(self) -> Keys:
        return self.keys_of(*self.signers)

    def keys_of(self, *roles: str) -> Keys:
        """As if only these roles' keys were on this machine."""
        return Keys(signer for role in roles for signer in self.signers[role])

    @property
    def roles(self) -> dict[str, RoleKeys]:
        return {
            role: RoleKeys([signer.public_key for signer in signers], 2 if role in OFFLINE else 1)
            for role, signers in self.signers.items()
        }

    @property
    def url(self) -> str:
        return self.tree.as_uri() + "/"

    def models(self, *models: str | Mapping[str, Any]) -> Hub:
        """What `models` holds: whole records, or ids of which `model` makes some."""
        return self.set("models", [model(given) if isinstance(given, str) else given for given in models])

    def set(self, collection: str, records: Iterable[Mapping[str, Any]]) -> Hub:
        self.collections[collection] = [canonical(dict(record)) for record in records]
        return self

    def publish(self, *, now: float | None = None, only: Sequence[str] | None = None, **options: Any) -> Published:
        """`only`: these collections; other options as `publish.tree.publish` has them."""
        chosen = {name: records for name, records in self.collections.items() if only is None or name in only}
        options = {"pending": self.pending, "pieces": self.pieces} | options
        now = time.time() if now is None else now
        return publishing.publish(self.tree, options.pop("keys", self.keys), chosen, now=now, **options)


CONFIG = """
daemon off;
master_process off;
pid {here}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log {here}/access.log;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    types {{ application/json json; }}
    default_type application/octet-stream;
    gzip {gzip};
    gzip_min_length 1;
    gzip_types application/json;
    server {{
        listen 127.0.0.1:{port};
        root "{root}";
        {locations}
    }}
}}
"""


class Nginx:
    """One nginx process on loopback, in the foreground, as whoever runs the tests; its files lie in `here`."""

    def __init__(self, binary: str, folder: Path, here: Path, *, gzip: bool = False, locations: str = "") -> None:
        here.mkdir(parents=True)
        self._here, self._command = here, [binary, "-p", str(here), "-c", str(here / "nginx.conf"), "-e", "stderr"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        text = CONFIG.format(here=here, port=port, root=folder, gzip="on" if gzip else "off", locations=locations)
        (here / "nginx.conf").write_text(text)
        self.address = ("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{port}/"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Nginx:
        """Answers when it listens."""
        with (self._here / "output.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(self.address, timeout=PATIENCE).close()
                return self
            except ConnectionRefusedError:
                output = (self._here / "output.log").read_text()
                assert self._process.poll() is None, f"nginx has ended: {output}"
                assert time.monotonic() < give_up, f"nginx does not listen: {output}"
                time.sleep(0.01)  # the kernel tells nobody when a port begins to listen

    def kill(self) -> None:
        """As a power cut would; `start` begins again on the same port."""
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def requests(self) -> list[str]:
        """The lines of the access log so far."""
        return (self._here / "access.log").read_text().splitlines()


class Serve:
    """`serve(folder)` starts an nginx and answers its address, `http://127.0.0.1:PORT/`; `serve.at(url)` is the server
    behind it. Options: `gzip=True`; `locations`, more lines for the configuration."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self._servers: dict[str, Nginx] = {}

    def __call__(self, folder: Path, **options: Any) -> str:
        server = Nginx(self._binary, folder, self._folder / str(len(self._servers)), **options).start()
        self._servers[server.url] = server
        return server.url

    def at(self, url: str) -> Nginx:
        return self._servers[url]

    def stop(self) -> None:
        for server in self._servers.values():
            server.stop()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Serve]:
    """All that it started is stopped at the end."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian's package nginx-light has it)")
    serve = Serve(binary, tmp_path / "nginx")
    try:
        yield serve
    finally:
        serve.stop()
