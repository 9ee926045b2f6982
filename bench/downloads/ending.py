"""From the last byte of a file to the word that it is complete: the rest of the hash, syncing, its name."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from host import running
from kit import MIB, Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table
from sides import OURS
from spread import spread
from timeline import Timeline

from jan_core import RpcError

__all__ = ["measure"]

GIGABIT = 125_000_000


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, rows, load = Report(), [], Load(lambda: [kit.web.pid])
    for name, limit in (("as fast as it goes", 0), ("at 1 Gbit/s", GIGABIT)):
        for side in OURS:
            say(f"ending: {side}, {name}")
            try:
                found = [await _end(kit, side == OURS[0], limit) for _ in range(kit.runs if not limit else 1)]
            except NotTakenError as error:
                report.notes.append(f"{side}, {name}: {error}")
                continue
            ends = [end for end, _ in found]
            rows.append([f"{side}, {name}", spread(ends), spread([speed / 1e6 for _, speed in found])])
            if limit:
                report.reaches.append(Reach(f"{side}, {name}: after the last byte", max(ends), 1, "s"))
    report.tables.append(Table("After the last byte", ["", "s until it is complete", "MB/s until then"], rows))
    report.notes.append(f"{kit.web.content.size / MIB:,.0f} MiB; the limit is the download's own; {kit.busy(load)}")
    return report


async def _end(kit: Kit, pieces: bool, limit: int) -> tuple[float, float]:
    """Seconds from the last byte on, and bytes a second until then."""
    params: dict[str, Any] = {"limit": limit} if limit else {}
    async with running(kit.fresh("ending")) as host:
        await host.fetch(kit.web.content.small(kit.web.endpoint))
        with Timeline(host.pid) as timeline:
            began = time.time()
            try:
                await host.fetch(kit.web.content.file(kit.web.url, pieces=kit.web.pieces if pieces else ""), **params)
            except RpcError as error:
                raise NotTakenError(str(error)) from error
            ended = time.time()
            await asyncio.sleep(0)
    last = timeline.reached(kit.web.content.size)
    if last is None:
        raise NotTakenError("fewer bytes were written than the file has")
    return max(0.0, ended - last), kit.web.content.size / (last - began)
