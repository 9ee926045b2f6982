"""A host behind `stdio.serve` in a process of its own, and a blocking client that speaks to it byte by byte."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["INITIALIZE", "PROGRAM", "TRANSPORTS", "Speaker", "speak"]

PROGRAM = Path(__file__).with_name("speaking.py")
TRANSPORTS = ["loop", "threads"]
INITIALIZE = b'{"jsonrpc":"2.0","id":0,"method":"initialize"}\n'
PATIENCE = 20.0


class Speaker:
    """Sends and receives lines. `write` and `read` are its ends of the pipes."""

    def __init__(self, process: subprocess.Popen[bytes], write: int, read: int) -> None:
        self.process, self.write, self.read = process, write, read
        self._kept = b""

    def send(self, data: bytes, patience: float = PATIENCE) -> int:
        """Send bytes; returns how many were taken within `patience` seconds."""
        view, until = memoryview(data), time.monotonic() + patience
        while view and (left := until - time.monotonic()) > 0:
            if select.select([], [self.write], [], left)[1]:
                view = view[os.write(self.write, view[:4096]) :]
        return len(data) - len(view)

    def request(self, id: Any, method: str, params: Any = None) -> bytes:
        message = {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}}
        return json.dumps(message, ensure_ascii=False).encode() + b"\n"

    def line(self) -> bytes:
        """The next line. Raises EOFError at the end, TimeoutError when there is none for long."""
        parts = [self._kept]
        while b"\n" not in parts[-1]:
            if not select.select([self.read], [], [], PATIENCE)[0]:
                raise TimeoutError("nothing came")
            data = os.read(self.read, 1 << 20)
            if not data:
                raise EOFError
            parts.append(data)
        line, _, self._kept = b"".join(parts).partition(b"\n")
        return line

    def receive(self) -> Any:
        return json.loads(self.line())

    def ask(self, id: Any, method: str, params: Any = None) -> Any:
        """The answer of a request; what comes before it is passed over."""
        self.send(self.request(id, method, params))
        return self.answer(id)

    def answer(self, id: Any) -> Any:
        while (message := self.receive()).get("id") != id:
            pass
        return message

    def cancel(self, id: Any) -> None:
        self.send(b'{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}\n' % id)

    def ended(self, within: float = 5.0) -> int:
        """The exit status. Raises subprocess.TimeoutExpired when it has none in time."""
        return self.process.wait(within)

    def memory(self) -> float:
        """MiB of the process that are in memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def speak(transport: str, *, initialize: bool = True, stderr: Any = subprocess.DEVNULL) -> Iterator[Speaker]:
    """Run the program on two pipes."""
    command = [sys.executable, str(PROGRAM), transport]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            speaker = Speaker(process, process.stdin.fileno(), process.stdout.fileno())
            if initialize:
                speaker.ask(0, "initialize")
            yield speaker
        finally:
            process.kill()
