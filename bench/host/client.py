"""Builds the C client and runs it: one server, one figure."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import frames
import msgspec
from frames import Payload
from servers import Server

__all__ = ["Client", "Measured", "NotTakenError"]

Mode = Literal["cold", "sequential", "pipelined", "stream"]
IN_FLIGHT = 64
LIMIT = 60.0
"""Seconds one run may take, start and end included."""


class NotTakenError(Exception):
    """A figure could not be had; the text says why."""


class Measured(msgspec.Struct, kw_only=True):
    """What the client printed. Times in the unit of the name; `cpu_us` is the server's, for each request or item."""

    first_ms: float
    ready_ms: float
    peak_kib: int
    wrong: int
    status: int
    end_ms: float
    count: int = 0
    items: int = 0
    median_us: float = 0.0
    p99_us: float = 0.0
    rate: float = 0.0
    cpu_us: float = 0.0


@dataclass(frozen=True)
class Client:
    """The compiled client and the frames it sends, in a folder that is the caller's to remove."""

    folder: Path

    @classmethod
    def build(cls, folder: Path) -> Client:
        """Compile it. Raises NotTakenError where there is no C compiler."""
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            raise NotTakenError("no C compiler (cc): the client of these measurements is written in C")
        source = Path(__file__).with_name("client.c")
        built = subprocess.run(
            [compiler, "-O2", "-o", str(folder / "client"), str(source)], capture_output=True, text=True
        )
        if built.returncode:
            raise NotTakenError(f"the client does not compile: {built.stderr.strip()[-300:]}")
        return cls(folder)

    def run(
        self,
        server: Server,
        mode: Mode,
        payload: Payload = "small",
        *,
        millis: int = 300,
        warm: int = 100,
        pause_us: int = 0,
        one_core: bool = False,
    ) -> Measured:
        """Start the server, measure, end it. Raises NotTakenError when it or an answer was not as it must be."""
        name = server.stream if mode == "stream" else server.echo
        words: list[str | int] = [mode, server.framing, millis, warm, IN_FLIGHT, pause_us, int(one_core)]
        words += [self._least(server, mode, payload), int(server.checked)]
        words += [self._hello(server), self._requests(server, name, payload)]
        command = [str(self.folder / "client"), *map(str, words), "--", *server.command]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        except subprocess.TimeoutExpired:
            raise NotTakenError(f"no end within {LIMIT:g} s") from None
        if done.returncode:
            raise NotTakenError(done.stderr.strip()[-300:] or f"the client ended with {done.returncode}")
        measured = msgspec.json.decode(done.stdout, type=Measured)
        if measured.wrong or measured.status:
            raise NotTakenError(f"{measured.wrong} wrong answers, exit status {measured.status}: {done.stderr[-300:]}")
        if mode == "stream" and measured.items != measured.count * frames.STREAM_ITEMS:
            raise NotTakenError(f"{measured.items} items for {measured.count} requests")
        return measured

    def _least(self, server: Server, mode: Mode, payload: Payload) -> int:
        """Bytes an answer has at least, without a space and with every letter as it is."""
        if mode not in ("sequential", "pipelined") or not server.checked:
            return 0
        return len(frames.text({"jsonrpc": "2.0", "id": frames.FIRST_ID, "result": frames.params(payload)}))

    def _hello(self, server: Server) -> str:
        path = self.folder / f"hello-{id(server.dialect)}-{server.framing}"
        if server.dialect.hello and not path.exists():
            frames.write(path, server.framing, server.dialect.hello)
        return str(path) if server.dialect.hello else "-"

    def _requests(self, server: Server, name: str, payload: Payload) -> str:
        path = self.folder / f"{name}-{payload}-{id(server.dialect)}-{server.framing}"
        if not path.exists():
            stream = name == server.stream
            count = 100 if stream else frames.LARGE_COUNT if payload == "64 KiB" else frames.SMALL_COUNT
            params = {"count": frames.STREAM_ITEMS} if stream else frames.params(payload)
            frames.write(path, server.framing, frames.requests(server.dialect, name, params, count))
        return str(path)
