"""What a client that asks and never reads costs a server: how much it goes on taking in, and how much it grows.

Twice: with requests of 64 KiB whose answers nobody takes, and with one endless stream. Growth is peak resident memory
over what was resident just before, after a warm-up of the same requests read properly. Linux only: it needs /proc.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from pathlib import Path
from typing import Any

import frames
import servers
from client import NotTakenError
from machine import Load
from report import Reach, Report, Table, figure, progress
from servers import ASYNC, JSON, PYGLS, PYLSP, SDK, SYNC, THREADS, Server

__all__ = ["measure"]

WARM = 64
STALLED = 1.0
"""Seconds without room in its input after which a server has stopped reading."""
LONGEST, MOST = 8.0, 256 << 20
"""A server that still takes requests after so many seconds or bytes is not stopping."""
LATEST = 30.0
"""Seconds for the answers once the client reads."""
ENDLESS = 100_000_000
MIB = 1 << 20


class Talk:
    """A server and its two pipes, neither of which can block us."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._process = subprocess.Popen(
            server.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        self._ids = 0
        self._tail = b""
        self.answers = 0

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def request(self, name: str, params: Any) -> bytes:
        """One framed request with an id of its own."""
        self._ids += 1
        method, whole = self._server.dialect.ask(name, params)
        message = {"jsonrpc": "2.0", "id": self._ids, "method": method, "params": whole}
        return frames.framed(message, self._server.framing)

    def greet(self) -> None:
        for message in self._server.dialect.hello:
            self.exchange(frames.framed(message, self._server.framing), self.answers + ("id" in message))

    def exchange(self, data: bytes, answers: int) -> None:
        """Send, reading meanwhile, until so many answers are there in all. Raises NotTakenError."""
        deadline = time.monotonic() + LATEST
        with selectors.DefaultSelector() as selector:
            selector.register(self._out, selectors.EVENT_READ)
            while data or self.answers < answers:
                if time.monotonic() > deadline:
                    raise NotTakenError(f"{self.answers} of {answers} answers within {LATEST:g} s")
                data = data[self.push(data) :]
                for _ in selector.select(0.01):
                    self._take(os.read(self._out, MIB))

    def push(self, data: bytes) -> int:
        """Write what there is room for."""
        try:
            return os.write(self._in, data) if data else 0
        except BlockingIOError:
            return 0

    def _take(self, data: bytes) -> None:
        if not data:
            raise NotTakenError("the server ended")
        # Results are counted by their key, which stands in no payload of ours; it may be cut by the end of a read.
        data = self._tail + data
        found = [match.end() for match in re.finditer(rb'"result"\s*:', data)]
        self.answers += len(found)
        self._tail = data[max(found[-1] if found else 0, len(data) - 16) :]

    def resident(self) -> int:
        """Bytes resident now; the peak begins anew from here. Raises NotTakenError."""
        try:
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
        except OSError as error:
            raise NotTakenError(f"the peak of resident memory cannot be reset here: {error.strerror}") from error
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most bytes resident since then."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(rf"{name}:\s*(\d+) kB", text)
        if found is None:
            raise NotTakenError("the server ended")
        return int(found[1]) << 10


def unread_requests(server: Server) -> tuple[float, float]:
    """MiB of 64 KiB requests it takes from a client that reads nothing, and MiB by which it grows.

    Raises NotTakenError, also when the answers are not all there once they are read.
    """
    talk = Talk(server)
    try:
        talk.greet()
        large = frames.params("64 KiB")
        for _ in range(WARM):
            talk.exchange(talk.request(server.echo, large), talk.answers + 1)
        before, wanted = talk.resident(), talk.answers
        rest, taken, began = b"", 0, time.monotonic()
        moved = began
        while time.monotonic() - moved < STALLED and time.monotonic() - began < LONGEST and taken < MOST:
            if not rest:
                rest, wanted = talk.request(server.echo, large), wanted + 1
            written = talk.push(rest)
            rest, taken = rest[written:], taken + written
            if written:
                moved = time.monotonic()
            else:
                time.sleep(0.005)
        growth = talk.peak() - before
        talk.exchange(rest, wanted)
    finally:
        talk.end()
    return taken / MIB, growth / MIB


def unread_stream(server: Server, seconds: float) -> float:
    """MiB by which it grows while an endless stream is not read. Raises NotTakenError."""
    talk = Talk(server)
    try:
        talk.greet()
        talk.exchange(talk.request(server.stream, {"count": 1000}), talk.answers + 1)
        before = talk.resident()
        talk.push(talk.request(server.stream, {"count": ENDLESS}))
        time.sleep(seconds)
        return (talk.peak() - before) / MIB
    finally:
        talk.end()


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures: one round, for they do not depend on the machine's load."""
    rows, notes, load = [], [], Load()
    growth: dict[str, float] = {}
    for server in servers.available():
        if server.name not in (JSON, PYLSP, PYGLS, SDK, SYNC, ASYNC, THREADS):
            continue
        progress(f"memory: {server.name}")
        cells: list[str] = []
        try:
            taken, grown = unread_requests(server)
            growth[server.name] = grown
            cells = [figure(taken), figure(grown)]
            if server.stream:
                streamed = unread_stream(server, 1 if quick else 4)
                growth[server.name] = max(grown, streamed)
                cells.append(figure(streamed))
        except NotTakenError as error:
            notes.append(f"{server.name}: {error}")
        rows.append([server.name, *cells, *["-"] * (3 - len(cells))])
    progress("")
    notes.append(f"busy with other work: {figure(load.cores())} cores")
    columns = ["", "64 KiB requests taken, MiB", "growth, MiB", "growth by an unread stream, MiB"]
    ours = [growth[name] for name in (SYNC, ASYNC, THREADS) if name in growth]
    reach = Reach("growth under a client that never reads, the worst of ours", max(ours, default=None), 4, unit="MiB")
    return Report([Table("A client that never reads", columns, rows)], [reach], notes)
