"""nginx on loopback, tuned to be no hindrance: sendfile, one worker, no waiting between requests."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
from client import NotTakenError
from content import Content

__all__ = ["COMMIT", "Asked", "Web"]

PATIENCE = 10.0
NOTED = 0.2
COMMIT = "c0ffee" * 6 + "c0ff"
CONFIG = """
daemon off;
master_process off;
pid {here}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format asked escape=json '{{"end":$msec,"took":$request_time,"sent":$body_bytes_sent,"path":"$uri",'
        '"range":"$http_range","status":$status}}';
    access_log {here}/access.log asked;
    client_body_temp_path {here}/body;
    proxy_temp_path {here}/proxy;
    fastcgi_temp_path {here}/fastcgi;
    uwsgi_temp_path {here}/uwsgi;
    scgi_temp_path {here}/scgi;
    types {{ }}
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=100;
    server {{
        listen 127.0.0.1:{port} backlog=128;
        root "{root}";
        location /hub/bench/resolve/ {{
            rewrite ^/hub/bench/resolve/[^/]*/(.*)$ /$1 break;
            add_header X-Repo-Commit {commit};
            add_header X-Linked-Etag '"{sha256}"';
        }}
    }}
}}
"""


class Asked(msgspec.Struct):
    """A request that has ended: when (s since the epoch), how long it took, and bytes of body that went out."""

    end: float
    took: float
    sent: int
    path: str
    range: str
    status: int


@dataclass
class Web:
    """Serves the folder of a Content; as the Hugging Face Hub does, too: `url` is its endpoint, `hub/bench` the
    repository."""

    here: Path
    content: Content
    _process: subprocess.Popen[bytes] | None = None
    port: int = 0

    def __enter__(self) -> Self:
        """Raises NotTakenError without nginx."""
        binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if binary is None:
            raise NotTakenError("nginx is not installed (Debian's package nginx-light has it)")
        self.here.mkdir(parents=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        config, root = self.here / "nginx.conf", self.content.path.parent
        config.write_text(
            CONFIG.format(here=self.here, port=self.port, root=root, commit=COMMIT, sha256=self.content.sha256)
        )
        command = [binary, "-p", str(self.here), "-c", str(config), "-e", "stderr"]
        with (self.here / "output.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), PATIENCE).close()
                return self
            except ConnectionRefusedError:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    self.__exit__()
                    raise NotTakenError(f"nginx does not listen: {(self.here / 'output.log').read_text()}") from None
                time.sleep(0.01)  # the kernel tells nobody when a port begins to listen

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.endpoint}/{self.content.path.name}"

    @property
    def pieces(self) -> str:
        return f"{self.endpoint}/{self.content.list_path.name}"

    def asked(self) -> list[Asked]:
        """All requests that have ended."""
        log = self.here / "access.log"
        return [msgspec.json.decode(line, type=Asked) for line in log.read_bytes().splitlines()] if log.exists() else []

    def sent(self) -> int:
        """Bytes of the file that went out so far. nginx notes a request when it gets round to it after its end."""
        time.sleep(NOTED)
        return sum(asked.sent for asked in self.asked() if not asked.path.endswith(".pieces"))
