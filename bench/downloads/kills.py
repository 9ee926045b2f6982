"""What has to be fetched again when the downloading process is killed: ours beside aria2c.

The server sends at a steady rate, of all connections together. What it sent in the end beyond the size of the file was
lost, what lay in the buffers of sockets included.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import content
from host import running
from kit import MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure
from sides import OURS, aria2_command

from extensions.download.tests.faultserver import FaultServer
from jan_core import RpcError

__all__ = ["measure"]

PATH = "/model.bin"
SHORTEST, LONGEST = 0.1, 0.5
"""Seconds that bytes come before a kill."""
BETWEEN = 0.4
"""As many seconds the whole file takes for each kill, so that there are kills enough before its end."""
PATIENCE = 120.0

Death = Callable[[FaultServer, float], Awaitable[bool]]
"""Starts a process that goes on with the download and kills it when bytes have come for so many seconds; whether it was
killed, and had not come to its end before."""


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    size, report, load = kit.content.size, Report(), Load()
    rate = round(size / (BETWEEN * kit.kills))
    rows = []
    plans = {
        OURS[0]: _ours(kit, kit.fresh("killed"), True),
        OURS[1]: _ours(kit, kit.fresh("killed"), False),
        "aria2c -x4": _aria2(kit, []),
        "aria2c -x4, saves its state each second": _aria2(kit, ["--auto-save-interval=1"]),
    }
    for side, death in plans.items():
        say(f"kills: {side}")
        with FaultServer(rate=rate) as server:
            server.serve(PATH, kit.content.path)
            server.serve(PATH + ".pieces", kit.content.list_path)
            try:
                killed = await _killed(kit, server, death)
            except NotTakenError as error:
                report.notes.append(f"{side}: {error}")
                continue
            lost = server.sent(PATH) - size
        each = lost / killed if killed else None
        seconds = None if each is None else each / rate
        rows.append([side, figure(killed), *map(figure, [lost / MIB, each and each / MIB, seconds])])
        if side in OURS:
            report.reaches.append(Reach(f"{side}: lost per kill", seconds, 1, "s of transfer"))
    columns = ["", "kills", "fetched again, MiB", "MiB per kill", "s of transfer per kill"]
    report.tables.append(Table("Killed by SIGKILL", columns, rows))
    report.notes.append(
        f"{size / MIB:,.0f} MiB at {rate / 1e6:.0f} MB/s, killed after {SHORTEST:g} to {LONGEST:g} s of transfer; "
        f"the SHA-256 was right in the end each time; {kit.busy(load)}"
    )
    return report


async def _killed(kit: Kit, server: FaultServer, death: Death) -> int:
    """How many times it was killed before it came to its end."""
    delays = random.Random(kit.kills)
    for number in range(kit.kills):
        if not await death(server, delays.uniform(SHORTEST, LONGEST)):
            return number
    if await death(server, PATIENCE):
        raise NotTakenError(f"no end within {PATIENCE:g} s")
    return kit.kills


def _ours(kit: Kit, data: Path, pieces: bool) -> Death:
    async def death(server: FaultServer, delay: float) -> bool:
        url = server.url(PATH)
        file = kit.content.file(url, pieces=f"{url}.pieces" if pieces else "")
        async with running(data, quiet=False, retry_first=0.05) as host:
            sent = server.sent(PATH)
            ended = asyncio.create_task(host.fetch(file))
            await _comes(server, sent, ended)
            with suppress(TimeoutError, RpcError):
                async with asyncio.timeout(delay):
                    done = await asyncio.shield(ended)
                    _right(kit, Path(done["path"]))
                    return False
            await host.kill()
            ended.cancel()
            with suppress(asyncio.CancelledError, RpcError, OSError):
                await ended
            return True

    return death


def _aria2(kit: Kit, options: list[str]) -> Death:
    folder = kit.fresh("aria2")

    async def death(server: FaultServer, delay: float) -> bool:
        command = [*aria2_command(folder, 4), "--continue=true", f"--checksum=sha-256={kit.content.sha256}", *options]
        sent = server.sent(PATH)
        null = subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*command, server.url(PATH), stdout=null, stderr=null)
        ended = asyncio.create_task(process.wait())
        try:
            await _comes(server, sent, ended)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    if await asyncio.shield(ended):
                        raise NotTakenError(f"aria2c ended with {process.returncode}")
                    _right(kit, folder / PATH[1:])
                    return False
            return True
        finally:
            if process.returncode is None:
                process.kill()
            await ended

    return death


async def _comes(server: FaultServer, sent: int, ended: asyncio.Task[object]) -> None:
    """Wait until bytes come, or the process needs none any more."""
    while server.sent(PATH) == sent and not ended.done():  # noqa: ASYNC110 - the server is no part of this loop
        await asyncio.sleep(0.002)


def _right(kit: Kit, path: Path) -> None:
    if content.digest(path) != kit.content.sha256:
        raise NotTakenError("the file is wrong in the end")
