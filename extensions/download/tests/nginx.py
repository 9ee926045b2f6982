"""Debian's nginx as a source of files: what serves most of the world's downloads, rather than a server of ours.

from .nginx import nginx  # noqa: F401  (a fixture is found by its name)

web = nginx(folder)                                # one site
web = nginx(folder, folder, "limit_rate 2m;")      # three: a string is more configuration for the one before it
web.url(1, "model.gguf")                           # of the second site
web.kill(); web.start()                            # as a power cut would; again on the same ports
web.requests()                                     # the access log: (site, status, bytes sent, Range)
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

__all__ = ["Nginx", "StartNginx", "nginx"]

PATIENCE = 20.0
"""Seconds until nginx must have begun to listen, or have ended."""

_CONFIG = """
daemon off;
master_process off;
pid "{here}/nginx.pid";
events {{ worker_connections 256; }}
http {{
    log_format told '$server_port|$status|$body_bytes_sent|$http_range';
    access_log "{here}/access.log" told;
    client_body_temp_path "{here}/body";
    proxy_temp_path "{here}/proxy";
    fastcgi_temp_path "{here}/fastcgi";
    uwsgi_temp_path "{here}/uwsgi";
    scgi_temp_path "{here}/scgi";
    default_type application/octet-stream;
    sendfile on;
    {sites}
}}
"""
_SITE = 'server {{ listen 127.0.0.1:{port}{ssl}; server_name {name}; root "{root}"; {more} }}\n'


class Served(NamedTuple):
    """A line of the access log. `site`: which one; `sent`: bytes of its body; `range`: "" without one."""

    site: int
    status: int
    sent: int
    range: str


class Nginx:
    """One process with a port for each site. `certificate`: a PEM file with key and chain for `name`, to speak TLS."""

    def __init__(self, binary: str, here: Path, sites: list[tuple[Path, str]], certificate: Path | None, name: str):
        here.mkdir(parents=True)
        self._here, self._name, self._scheme = here, name, "https" if certificate else "http"
        self._command = [binary, "-p", str(here), "-c", str(here / "nginx.conf"), "-e", "stderr"]
        with ExitStack() as held:  # all at once, so that they differ
            self.ports = [_free_port(held) for _ in sites]
        tls = f'ssl_certificate "{certificate}"; ssl_certificate_key "{certificate}";' if certificate else ""
        blocks = [
            _SITE.format(port=port, ssl=" ssl" if certificate else "", name=name, root=root, more=more + tls)
            for port, (root, more) in zip(self.ports, sites, strict=True)
        ]
        (here / "nginx.conf").write_text(_CONFIG.format(here=here, sites="".join(blocks)))
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, site: int, path: str) -> str:
        return f"{self._scheme}://{self._name}:{self.ports[site]}/{path}"

    def start(self) -> Nginx:
        """Answers when it listens."""
        with (self._here / "output.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.ports[-1]), timeout=PATIENCE).close()
                return self
            except ConnectionRefusedError:
                output = (self._here / "output.log").read_text()
                assert self._process.poll() is None, f"nginx has ended: {output}"
                assert time.monotonic() < give_up, f"nginx does not listen: {output}"
                time.sleep(0.01)  # the kernel tells nobody when a port begins to listen

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends with all its connections."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def requests(self) -> list[Served]:
        """What it has answered so far; not what it was killed in."""
        lines = [line.split("|", 3) for line in (self._here / "access.log").read_text().splitlines()]
        return [
            Served(self.ports.index(int(port)), int(status), int(sent), "" if asked == "-" else asked)
            for port, status, sent, asked in lines
        ]


def _free_port(held: ExitStack) -> int:
    free = held.enter_context(socket.socket())
    free.bind(("127.0.0.1", 0))
    return int(free.getsockname()[1])


StartNginx = Callable[..., Nginx]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StartNginx]:
    """Starts servers; all of them are stopped at the end."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        pytest.skip("nginx is not installed (Debian's package nginx-light has it)")
    servers: list[Nginx] = []

    def start(*sites: Path | str, certificate: Path | None = None, name: str = "127.0.0.1") -> Nginx:
        blocks: list[tuple[Path, str]] = []
        for site in sites:
            if isinstance(site, Path):
                blocks.append((site, ""))
            else:
                folder, more = blocks.pop()
                blocks.append((folder, more + site))
        server = Nginx(binary, tmp_path / f"nginx {len(servers)}", blocks, certificate, name)
        servers.append(server)
        return server.start()

    try:
        yield start
    finally:
        for server in servers:
            server.stop()
