"""What the host costs while nobody calls, and what watching the event loop costs while somebody does.

Wakings are the voluntary context switches of every thread of a `jan-sidecar` whose startup extensions are up and which
watches no files, from `/proc`.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from pathlib import Path

from client import NotTakenError
from house import House, running
from machine import Load
from report import Reach, Report, Table, figure, progress

from jan_core.stall import StallWatch

__all__ = ["measure"]

TURNS = 5_000
SLICES = 10
PACE = 0.002
SETTLED = 3.0
"""Seconds after which what the start has set off is over."""


def wakings(pid: int) -> dict[str, int]:
    """Voluntary context switches so far, by thread. Raises NotTakenError where there is no /proc."""
    found: dict[str, int] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/status"):
        text = task.read_text()
        name, count = (re.search(rf"^{key}:\s*(\S.*)$", text, re.M) for key in ("Name", "voluntary_ctxt_switches"))
        if name and count:
            found[f"{name[1]} {task.parent.name}"] = int(count[1])
    if not found:
        raise NotTakenError("context switches cannot be read here")
    return found


async def woken(house: House, seconds: float, paced: bool) -> tuple[float, float]:
    """Wakings a second of all threads, and of the busiest but the first (the loop's), idle or with calls 2 ms apart."""
    await house.client.call("ping")
    await asyncio.sleep(SETTLED)
    before, began = wakings(house.pid), time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asyncio.sleep(PACE if paced else seconds)
        if paced:
            await house.client.call("ping")
    took = time.perf_counter() - began
    rates = {name: (count - before.get(name, 0)) / took for name, count in wakings(house.pid).items()}
    others = [rate for name, rate in rates.items() if not name.endswith(f" {house.pid}")]
    return sum(rates.values()), max(others, default=0.0)


async def turns(watched: bool) -> float:
    """Seconds for one turn of an event loop that has nothing else to do."""

    async def spin() -> float:
        began = time.perf_counter()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return (time.perf_counter() - began) / TURNS

    if not watched:
        return await spin()
    watch = StallWatch()
    with watch.attached():
        watch.start()
        return await spin()


async def take(seconds: float) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), []) as house:
            await house.client.call("system.doctor")  # answered when the startup extensions are up
            progress("idle: nobody calls")
            idle = await woken(house, seconds, paced=False)
            progress("idle: calls 2 ms apart")
            return {"idle": idle, "calls 2 ms apart": await woken(house, seconds / 2, paced=True)}


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures. Raises NotTakenError when there is no sidecar or no /proc."""
    load = Load()
    found = asyncio.run(take(5 if quick else 10))
    spins = [(asyncio.run(turns(False)), asyncio.run(turns(True))) for _ in range(rounds * SLICES)]
    plain, watched = (min(of) * 1e6 for of in zip(*spins, strict=True))
    progress("")
    rows = [[name, *(figure(value) for value in values)] for name, values in found.items()]
    tables = [
        Table("Wakings of `jan-sidecar`, a second", ["", "all threads", "busiest but the loop's"], rows),
        Table("One turn of the loop, us", ["", "us"], [["plain", figure(plain)], ["watched", figure(watched)]]),
    ]
    reaches = [Reach("wakings while idle", found["idle"][0], 2, unit="/s")]
    return Report(tables, reaches, [f"busy with other work: {figure(load.cores())} cores"])
