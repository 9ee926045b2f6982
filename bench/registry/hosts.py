"""Running `jan-sidecar`s that have a hub's list, and what they compute."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogues import Catalogue
from house import House, running
from kit import Kit, NotTakenError, Site

from jan_core import RpcError

__all__ = ["TICK", "Synced", "beside", "computed", "named", "opened", "synced"]

TICK = 0.002


@dataclass(frozen=True)
class Synced:
    """A data folder whose host has the list `catalogue`, and how it came to it: what `registry.refresh` answered, and
    the seconds that a `ping` every 2 ms took. `idle`: while nothing else was asked for; `first`: while the network was
    used for the first time, in vain; `late`: while the list came."""

    data: Path
    catalogue: Catalogue
    report: dict[str, Any]
    seconds: float
    idle: list[float]
    first: list[float]
    late: list[float]


def named(kit: Kit, site: Site) -> Path:
    """A new data folder whose settings name a hub. Nothing is refreshed but on request."""
    data = kit.fresh("data")
    root = site.hub.tree / "metadata" / "1.root.json"
    registry = {"url": site.web.url, "root": str(root), "refresh_seconds": 0, "timeout_seconds": 300.0}
    (data / "settings.json").write_text(json.dumps({"registry": registry | {"phase": "dynamic"}}))
    return data


@asynccontextmanager
async def opened(data: Path) -> AsyncIterator[House]:
    """A `jan-sidecar` whose extensions are up. Raises NotTakenError where it is not installed."""
    async with running(data, []) as house:
        await house.client.call("registry.status")
        yield house


async def synced(kit: Kit, size: int) -> Synced:
    """A data folder with the list of that size, kept for all parts; made by a host that is watched meanwhile."""
    if size in kit.synced:
        return kit.synced[size]
    site = kit.site(size)
    data = named(kit, site)
    async with opened(data) as house:
        idle = await beside(house, lambda: asyncio.sleep(1.0))
        report: dict[str, Any] = {}

        async def refresh() -> None:
            report.update(await house.client.call("registry.refresh"))

        async def in_vain() -> None:
            with contextlib.suppress(RpcError):
                await refresh()

        site.web.stop()
        first = await beside(house, in_vain)
        site.web.start()
        began = time.perf_counter()
        late = await beside(house, refresh)
        seconds = time.perf_counter() - began
    kit.synced[size] = Synced(data, site.catalogue, report, seconds, idle, first, late)
    return kit.synced[size]


async def beside(house: House, work: Callable[[], Awaitable[object]]) -> list[float]:
    """Seconds that a `ping` takes, one after the other, for as long as the work does."""
    found: list[float] = []
    task = asyncio.ensure_future(work())
    while not task.done():
        await asyncio.sleep(TICK)
        began = time.perf_counter()
        await house.client.call("ping")
        found.append(time.perf_counter() - began)
    await task
    return found


def computed(house: House) -> float:
    """Seconds of computing so far of a host's threads. Raises NotTakenError where there is no /proc."""
    tasks = [path.read_text() for path in Path(f"/proc/{house.pid}/task").glob("*/schedstat")]
    if not tasks:
        raise NotTakenError("what a process computes cannot be read here")
    return sum(int(text.split()[0]) for text in tasks) / 1e9
