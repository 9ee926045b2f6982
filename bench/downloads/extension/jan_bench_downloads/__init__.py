"""What bench/downloads needs inside the host: a timer on its event loop, and further sources for a file."""

from __future__ import annotations

import asyncio
import time

import msgspec

from jan_core import Context, Empty, Method, hookimpl, method, methods_of
from jan_core.types import DownloadFile, DownloadSource

TICK = 0.002


class Late(msgspec.Struct):
    """By how many seconds each tick of 2 ms was late."""

    seconds: list[float]


class Mirrors(msgspec.Struct):
    """Addresses of the file with this SHA-256, the best first."""

    sha256: str
    urls: list[str]


class BenchDownloads:
    """The plugin."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._mirrors: dict[str, list[str]] = {}

    @hookimpl
    def jan_activate(self, ctx: Context) -> None:
        ctx.tasks.start_soon(self._tick)

    @hookimpl
    def jan_methods(self) -> list[Method]:
        return methods_of(self)

    @hookimpl
    def jan_download_sources(self, file: DownloadFile) -> list[DownloadSource]:
        urls = self._mirrors.get(file.sha256, [])
        return [DownloadSource(url, priority=rank) for rank, url in enumerate(urls)]

    @method("bench.late")
    def late(self, params: Empty) -> Late:
        """How late the event loop was since the last call."""
        late, self._late = self._late, []
        return Late(late)

    @method("bench.mirrors")
    def mirrors(self, params: Mirrors) -> Empty:
        """Further sources of a file from now on."""
        self._mirrors[params.sha256] = params.urls
        return Empty()

    async def _tick(self) -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK)
            self._late.append(time.perf_counter() - began - TICK)
