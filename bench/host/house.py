"""A running `jan-sidecar` with extensions under development, and a client connected to it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from client import NotTakenError
from start import sidecar

from jan_core.rpc.client import WireClient

__all__ = ["EXTENSION", "House", "running"]

EXTENSION = Path(__file__).parent / "extension"
PATIENCE = 30.0


@dataclass
class House:
    """`gap` and `generations` are answered by the extension `bench` inside it."""

    client: WireClient
    pid: int

    async def gap(self) -> float:
        """The longest gap of a 1 ms ticker on its event loop since the last call, in ms. The first call starts it."""
        answer = await self.client.call("bench.gap")
        return float(answer["seconds"]) * 1000

    async def generations(self, package: str) -> list[int]:
        """The generations of a package that are in its memory."""
        answer = await self.client.call("bench.generations", {"name": package})
        return list(answer["numbers"])

    def resident(self) -> float:
        """MiB resident now. Raises NotTakenError where there is no /proc."""
        status = Path(f"/proc/{self.pid}/status")
        found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
        if found is None:
            raise NotTakenError("resident memory cannot be read here")
        return int(found[1]) / 1024


@asynccontextmanager
async def running(data: Path, projects: Sequence[Path]) -> AsyncIterator[House]:
    """Run it with the extensions in some projects' folders, watched. Raises NotTakenError where it is not installed."""
    command = [*sidecar(data).command]
    for project in projects:
        command += ["--dev", str(project)]
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=null)
    assert process.stdin is not None
    assert process.stdout is not None
    client = WireClient(process.stdout, process.stdin)
    try:
        async with asyncio.timeout(PATIENCE):
            await client.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "bench"}})
            client.notify("initialized", {})
        yield House(client, process.pid)
    finally:
        await client.aclose()
        try:
            async with asyncio.timeout(PATIENCE):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
