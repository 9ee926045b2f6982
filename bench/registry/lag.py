"""How late a host's event loop is while it fetches, verifies, stores and indexes a whole list, seen from outside: by
the answers to a `ping` every 2 ms."""

from __future__ import annotations

from hosts import synced
from kit import Kit, say
from machine import Load
from quantiles import PERCENTILES, percentiles
from report import Report, Table, figure

__all__ = ["measure"]


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    rows, syncs, load = [], [], Load()
    for size in kit.sizes:
        say(f"lag: {size:,} models")
        found = await synced(kit, size)
        rows += [
            [f"{size:,} models: {when}", *percentiles(pings), figure(len(pings))]
            for when, pings in (("before", found.idle), ("a hub in vain", found.first), ("the sync", found.late))
        ]
        database = sum(path.stat().st_size for path in found.data.rglob("hub.db*"))
        sizes = [found.report["bytes"] / 1e3, database / 1e6]
        syncs.append([f"{size:,}", figure(found.seconds), *map(figure, sizes)])
    tables = [
        Table("`ping` of `jan-sidecar` beside a whole sync", ["", *PERCENTILES, "pings"], rows),
        Table("The sync", ["models", "s, pings and all", "kB that came", "database, MB"], syncs),
    ]
    return Report(tables, notes=[f"one sync each; busy with other work: {figure(load.cores())} cores"])
