"""How long a model takes to load, beside only reading its file; and how much of its memory comes back on unloading.

Cold: the file's pages were dropped from the system's cache just before (`posix_fadvise`). The machine below a virtual
machine may still have them; that helps the read as much as the load. Unloading is measured in `jan-sidecar` and all its
children, as the share of memory that is theirs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from kit import Kit, child_pids, say
from memory import resident, share
from models import Shape
from report import Reach, Report, Table, figure, ratio
from sides import follow
from spread import median
from starting import host, house, worker

__all__ = ["measure"]

WAYS: dict[str, dict[str, Any]] = {
    "mapped, repacked (default)": {},
    "mapped, not repacked": {"repack": False},
    "read, repacked": {"mmap": False},
}
N_CTX = 2048
BLOCK = 1 << 20


async def measure(kit: Kit) -> Report:
    """Take all figures."""
    report, loads, unloads = Report(), list[list[str]](), list[list[str]]()
    for shape in kit.shapes:
        model = kit.model(shape)
        for cold in (False, True):
            taken: dict[str, list[float]] = {}
            ready: dict[str, list[float]] = {}
            held: dict[str, int] = {}
            for _ in range(kit.rounds):
                taken.setdefault("the file only read", []).append(await timed(kit, model, cold, partial(read, model)))
                for name, options in WAYS.items():
                    say(f"{shape.name}, {'cold' if cold else 'warm'}: {name}")
                    alone, whole, held[name] = await loaded(kit, model, cold, options)
                    taken.setdefault(name, []).append(alone)
                    ready.setdefault(name, []).append(whole)
            raw = median(taken["the file only read"])
            for name, values in taken.items():
                cells = (millis(values), millis(ready.get(name, [])), ratio(median(values), raw))
                memory = figure(held[name] / 2**20) if name in held else "-"
                loads.append([f"{shape.name}, {'cold' if cold else 'warm'}: {name}", *map(figure, cells), memory])
        before, during, after = await unloaded(kit, shape)
        returned = (during - after) / (during - before) * 100
        unloads.append([shape.name, *(figure(value / 2**20) for value in (before, during, after)), figure(returned)])
        report.reaches.append(Reach(f"{shape.name}: memory that comes back", returned, 95, "%", at_least=True))
    heads = ["", "load, ms", "from spawn to ready, ms", "load over reading", "resident after an answer, MiB"]
    report.tables.append(Table("Loading", heads, loads))
    heads = ["", "before, MiB", "after an answer, MiB", "unloaded, MiB", "came back, %"]
    report.tables.append(Table("Unloading, host and children together", heads, unloads))
    report.notes.append(f"medians of {kit.rounds} rounds; {kit.quiet()}")
    return report


async def timed(kit: Kit, model: Path, cold: bool, work: Callable[[], Awaitable[object]]) -> float:
    """Seconds of some work on a model's file."""
    spent: list[float] = []

    async def run() -> None:
        if cold:
            drop(model)
        began = time.perf_counter()
        await work()
        spent.append(time.perf_counter() - began)

    await kit.clean(run, pids=list)
    return spent[-1]


async def loaded(kit: Kit, model: Path, cold: bool, options: dict[str, Any]) -> tuple[float, float, int]:
    """Seconds of the load alone, seconds from spawn to ready, and bytes resident once it has answered."""
    from jan_llamacpp.client import GenerateParams, Prompt, Sampling

    found: list[tuple[float, int]] = []
    whole: list[float] = []

    async def run() -> None:
        if cold:
            drop(model)
        began = time.perf_counter()
        async with worker(kit, model, n_ctx=N_CTX, n_seq=4, threads=kit.threads, **options) as running:
            whole.append(time.perf_counter() - began)
            greedy = Sampling(temperature=0)
            await follow(running, GenerateParams(Prompt(text="abc" * 200), greedy, max_tokens=4))
            found.append((running.info.load_seconds, resident(running.pid)))

    await kit.clean(run, pids=list)
    return found[-1][0], whole[-1], found[-1][1]


async def unloaded(kit: Kit, shape: Shape) -> tuple[int, int, int]:
    """Bytes that a host and its children hold before a model is loaded, with it, and after it was unloaded.

    One load and unload goes before: what a host imports the first time is no part of a model.
    """
    async with host(kit) as (client, pid):
        await house(client, kit, shape, N_CTX)
        body = {"model": shape.name, "messages": [{"role": "user", "content": "abc" * 100}], "max_tokens": 8}
        await client.call("chat.complete", body)
        await client.call("models.unload", {"id": shape.name})
        before = share(child_pids(pid))
        await client.call("chat.complete", body)
        during = share(child_pids(pid))
        await client.call("models.unload", {"id": shape.name})
        return before, during, share(child_pids(pid))


def millis(seconds: list[float]) -> float | None:
    middle = median(seconds)
    return None if middle is None else middle * 1e3


async def read(path: Path) -> None:
    buffer = bytearray(BLOCK)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def drop(path: Path) -> None:
    """Take a file out of the system's cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
