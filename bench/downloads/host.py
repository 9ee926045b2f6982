"""A running `jan-sidecar` that downloads, with the bench's own extension in it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import proc
from start import sidecar

from jan_core.rpc.client import WireClient

__all__ = ["Host", "running"]

EXTENSION = Path(__file__).parent / "extension"
PATIENCE = 60.0
QUIET = 0.2
"""Seconds without computing (to 10 ms) after which a host is said to have started."""
LONGEST = 900.0
"""Seconds that one download may take."""


@dataclass
class Host:
    """Its client, its process, and the folder it keeps everything in."""

    client: WireClient
    process: asyncio.subprocess.Process
    data: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    async def call(self, method: str, **params: Any) -> Any:
        async with asyncio.timeout(LONGEST):
            return await self.client.call(method, params)

    async def fetch(self, file: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Download; answers with the download once it is there. Raises RpcError when it fails."""
        return dict(await self.call("downloads.start", file=file, wait=True, **params))

    async def mirrors(self, sha256: str, urls: Sequence[str]) -> None:
        """More sources of a file, for downloads that start after this."""
        await self.call("bench.mirrors", sha256=sha256, urls=list(urls))

    async def late(self) -> list[float]:
        """By how many seconds a timer of 2 ms on its event loop was late, since the last call."""
        return list((await self.call("bench.late"))["seconds"])

    async def kill(self) -> None:
        """As the system does when it runs out of memory: nothing of it runs any more."""
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def running(
    data: Path, environment: dict[str, str] | None = None, *, quiet: bool = True, **settings: Any
) -> AsyncIterator[Host]:
    """Run it on a folder; `settings` are those of downloads. Raises NotTakenError where it is not installed.

    It uses no proxy, looks at no hub, and takes no copies of files from other programs' folders unless told to. With
    `quiet`, it has started for good, all its extensions, before it is handed out.
    """
    _settle(data, settings)
    command = [*sidecar(data).command, "--dev", str(EXTENSION)]
    pipe, env = asyncio.subprocess.PIPE, {**os.environ, **(environment or {})}
    with _log(data) as log:
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=log, env=env)
    assert process.stdin is not None
    assert process.stdout is not None
    client = WireClient(process.stdout, process.stdin)
    try:
        async with asyncio.timeout(PATIENCE):
            await client.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "bench"}})
            client.notify("initialized", {})
            await client.call("downloads.list", {})  # waits until the extension is active
            if quiet:
                await _quiet(process.pid)
        yield Host(client, process, data)
    finally:
        await client.aclose()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()


def _settle(data: Path, settings: dict[str, Any]) -> None:
    data.mkdir(parents=True, exist_ok=True)
    download = {"adopt": False, "proxy": "none", "reserve_bytes": 0, **settings}
    told = {"registry": {"refresh_seconds": 0, "phase": "fallback"}, "download": download}
    (data / "settings.json").write_text(json.dumps(told))


def _log(data: Path) -> BinaryIO:
    return (data / "host.log").open("ab")


async def _quiet(pid: int) -> None:
    """Wait until it computes no more: the other extensions start as well."""
    before = -1.0
    while (now := proc.computed(pid)) > before:
        before = now
        await asyncio.sleep(QUIET)
