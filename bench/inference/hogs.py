"""Processes that keep a core busy each: the rest of a desktop."""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType

__all__ = ["Hogs"]


class Hogs:
    """`count` of them for as long as the block lasts."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._running]

    def __enter__(self) -> Hogs:
        spin = [sys.executable, "-I", "-S", "-c", "print(flush=True)\nwhile True: pass"]
        self._running = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(self._count)]
        for process in self._running:
            assert process.stdout is not None
            process.stdout.readline()  # it spins now
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running:
            process.kill()
        for process in self._running:
            process.communicate()
