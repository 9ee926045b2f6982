"""What it costs an extension to run in a process of its own, beside the same one in the host's.

Calls are made in memory, so that the difference is the crossing alone: one more encoding, two more wakings. Start is
from the wish to call it to its being up; the way back is from the call that kills it to the answer of the next one.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from machine import Load
from report import Reach, Report, Table, figure, progress

from jan_core.errors import RpcError
from jan_core.host import Host
from jan_core.loader import folder_source
from jan_core.rpc.direct import DirectClient

__all__ = ["measure"]

ECHO = {"session": "s", "op": "o", "text": "x" * 64, "temperature": 0.7, "top": 40, "flags": [1, 2, 3]}

PLUGIN = """
import os
import msgspec
from jan_core import Call, Empty, hookimpl, method, methods_of

class Echo(msgspec.Struct):
    session: str
    op: str
    text: str
    temperature: float
    top: int
    flags: list[int]

class Count(msgspec.Struct):
    count: int

class Bench:
    @hookimpl
    def jan_methods(self):
        return methods_of(self)

    @method("bench.echo")
    async def echo(self, params: Echo) -> Echo:
        "The same again."
        return params

    @method("bench.stream", item=str)
    async def stream(self, params: Count, call: Call) -> None:
        "So many items."
        for _ in range(params.count):
            await call.send(" hello")

    @method("bench.pid")
    async def pid(self, params: Empty) -> int:
        "Where this runs."
        return os.getpid()

    @method("bench.die")
    async def die(self, params: Empty) -> None:
        "End the process."
        os._exit(1)
"""

PROJECT = """
[project]
name = "jan-bench"
version = "0"

[project.entry-points."jan.extensions"]
bench = "jan_bench:Bench"

[tool.jan.extension]
id = "bench"
requires-core = ">=1"
methods = ["bench."]
isolation = "{isolation}"
"""

Figures = dict[str, float]


@asynccontextmanager
async def opened(folder: Path, isolation: str) -> AsyncIterator[Host]:
    """A host with the extension in it, not yet activated."""
    project = folder / "project"
    (project / "jan_bench").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT.format(isolation=isolation))
    (project / "jan_bench" / "__init__.py").write_text(PLUGIN)
    async with Host(folder / "data", sources=[folder_source(project)]) as host:
        yield host


async def take(isolation: str, calls: int) -> Figures:
    """All figures of one round. Seconds, items a second, bytes."""
    folder = Path(tempfile.mkdtemp())
    try:
        async with opened(folder, isolation) as host:
            client, found = host.client(), Figures()
            began = time.perf_counter()
            pid = await client.call("bench.pid")
            found["start"] = time.perf_counter() - began
            for _ in range(calls // 10):
                await client.call("bench.echo", ECHO)
            found["trip"] = await timed(lambda: client.call("bench.echo", ECHO), calls)
            began = time.perf_counter()
            await asyncio.gather(*(some(client, calls // 64) for _ in range(64)))
            found["rate"] = calls // 64 * 64 / (time.perf_counter() - began)
            found["items"] = await items(client, calls * 2)
            if isolation == "process":
                found["memory"] = memory(pid)
                began = time.perf_counter()
                try:
                    await client.call("bench.die")
                except RpcError:
                    await client.call("bench.pid")
                found["back"] = time.perf_counter() - began
            return found
    finally:
        shutil.rmtree(folder)


async def timed(ask: Callable[[], Awaitable[Any]], count: int) -> float:
    """The median of so many."""
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await ask()
        took.append(time.perf_counter() - began)
    return sorted(took)[count // 2]


async def some(client: DirectClient, count: int) -> None:
    for _ in range(count):
        await client.call("bench.echo", ECHO)


async def items(client: DirectClient, count: int) -> float:
    """Stream items a second."""
    began = time.perf_counter()
    async with client.stream("bench.stream", {"count": count}) as stream:
        async for _ in stream:
            pass
        await stream.result()
    return count / (time.perf_counter() - began)


def memory(pid: int) -> float:
    """Bytes that are a process's own, and its share of what others use too; 0 where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) * 1024.0 if found else 0.0


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures, the kinds by turns; the best of each counts."""
    load, calls = Load(), 500 if quick else 4_000
    taken: dict[str, list[Figures]] = {"none": [], "process": []}
    for number in range(rounds):
        for kind, found in taken.items():
            progress(f"isolation: {kind}, round {number + 1}")
            found.append(asyncio.run(take(kind, calls)))
    progress("")

    def best(kind: str, name: str, of: Callable[..., float] = min) -> float:
        return of(figures[name] for figures in taken[kind])

    rows = [
        [
            {"none": "in the host's process", "process": "in one of its own"}[kind],
            figure(best(kind, "trip") * 1e6),
            figure(best(kind, "rate", max)),
            figure(best(kind, "items", max)),
            figure(best(kind, "start") * 1e3),
        ]
        for kind in taken
    ]
    table = Table(
        "An extension, called in memory", ["", "round trip, us", "64 in flight, 1/s", "items, 1/s", "start, ms"], rows
    )
    reaches = [
        Reach("start in a process", best("process", "start") * 1e3, 250, unit="ms"),
        Reach("from a crash to the next answer", best("process", "back") * 1e3, 400, unit="ms"),
    ]
    notes = [
        f"memory of the child (its share, PSS): {figure(best('process', 'memory') / (1 << 20))} MiB",
        f"busy with other work: {figure(load.cores())} cores",
    ]
    return Report([table], reaches, notes)
