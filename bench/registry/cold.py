"""The first list without a network: of a program that was just started, in a new profile and in one that has a list.

Whole processes, as a user starts them, beside an interpreter that does nothing and one that imports what they do. Lists
of other sizes than the one that is shipped are put under a host of its own (`first.py`), in which the first list is
asked for once the extension is up.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from hosts import synced
from house import PATIENCE
from jan_registry.publish.package import package
from kit import Kit, NotTakenError, say
from machine import Load
from report import Reach, Report, Table, figure
from start import sidecar

from jan_core.rpc.client import WireClient

__all__ = ["measure"]

COLUMNS = ["", "`initialize`, ms", "first list, ms", "asked for it, ms", "once more, ms", "models", "origin"]
IMPORTS = "import jan_sidecar.stdio, jan_core.host, jan_core.rpc.peer, jan_registry.plugin"
NEW = "new profile"


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    load, rounds = Load(), kit.rounds + 1  # the first one compiles bytecode, and is not counted
    profiles: dict[str, Path | None] = {NEW: None}
    for size in kit.sizes:
        profiles[f"has {size:,} models"] = (await synced(kit, size)).data
        kit.site(size).web.stop()
    starts: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in profiles}
    lists: dict[str, dict[str, Any]] = {}
    bare: dict[str, list[float]] = {}
    try:
        for number in range(rounds):
            say(f"cold: {number} of {kit.rounds}")
            for name, command in {"bare interpreter": ["-I", "-S", "-c", ""], "its imports": ["-c", IMPORTS]}.items():
                bare.setdefault(name, []).append(_ran(command))
            for name, data in profiles.items():
                times, lists[name] = await _started(data or kit.fresh("new"))
                starts[name].append(times)
    finally:
        for size in kit.sizes:
            kit.site(size).web.start()
    shipped = {size: [_first(kit, size) for _ in range(rounds)][1:] for size in kit.sizes[:2]}
    rows = [[name, "-", figure(median(of[1:]) * 1e3), "-", "-", "-", "-"] for name, of in bare.items()]
    for name, found in starts.items():
        cells = [figure(median(of) * 1e3) for of in zip(*found[1:], strict=True)]
        rows.append([name, *cells, str(len(lists[name]["models"])), lists[name]["provenance"]["origin"]])
    activated = [
        [f"{size:,} models shipped", *(figure(median(one[key] for one in found)) for key in ("up", "first", "again"))]
        for size, found in shipped.items()
    ]
    tables = [
        Table("From spawn, without a network", COLUMNS, rows),
        Table("In a host that is up", ["", "up, ms", "first list, ms", "once more, ms"], activated),
    ]
    new, up = median(times[2] for times in starts[NEW][1:]), median(one["first"] for one in shipped[kit.sizes[0]])
    reaches = [
        Reach("first list in a new profile, from `initialize` on", new * 1e3, 50, "ms"),
        Reach(f"first list in a host that is up, {kit.sizes[0]} models shipped", up, 50, "ms"),
    ]
    notes = [f"medians of {kit.rounds} starts; busy with other work: {figure(load.cores())} cores"]
    return Report(tables, reaches, notes)


def _ran(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    return time.perf_counter() - began


async def _started(data: Path) -> tuple[tuple[float, float, float, float], dict[str, Any]]:
    """Seconds from spawn until `initialize` and until the first list are answered, that the question for the first and
    for the second list took; and the list. Raises NotTakenError."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*sidecar(data).command, stdin=pipe, stdout=pipe, stderr=null)
    assert process.stdin is not None
    assert process.stdout is not None
    client = WireClient(process.stdout, process.stdin)
    try:
        async with asyncio.timeout(PATIENCE):
            await client.call("initialize", {"protocolVersion": "1.0", "clientInfo": {"name": "bench"}})
            ready = time.perf_counter()
            client.notify("initialized", {})
            answer: dict[str, Any] = await client.call("registry.featured")
            first = time.perf_counter()
            await client.call("registry.featured")
            second = time.perf_counter()
    finally:
        await client.aclose()
        await process.wait()
    if not answer["models"]:
        raise NotTakenError(f"the first list of {data.name} is empty")
    return (ready - began, first - began, first - ready, second - first), answer


def _first(kit: Kit, size: int) -> dict[str, float]:
    """What `first.py` measured with that many models shipped. Raises NotTakenError."""
    shipped = kit.folder / f"shipped-{size}"
    if not shipped.exists():
        package(kit.site(size).hub.tree, shipped)
    script = str(Path(__file__).with_name("first.py"))
    done = subprocess.run(
        [sys.executable, script, str(shipped), str(kit.fresh("new"))], capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise NotTakenError(done.stderr.strip()[-300:])
    found: dict[str, float] = json.loads(done.stdout)
    return found
