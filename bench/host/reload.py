"""Hot reload of an extension of 5,000 lines in a running `jan-sidecar`, as its author and its callers meet it.

Three things. From saving a file (the rename that puts it in place) to the first answer of the new code, to a client
that calls all the while. The steps of a reload, as `extensions.reload` reports them. And a thousand saves under streams
that never stop: is every one answered whole, and is the old code gone afterwards? Once with time between two saves for
the streams of the old code to end, and once without: there are never three generations, so the oldest is cut short.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client import NotTakenError
from house import EXTENSION, House, running
from large import MODULES, Large
from machine import Load
from report import Reach, Report, Table, figure, progress

from jan_core.errors import ExtensionReloaded, RpcError

__all__ = ["measure"]

SERVED_WITHIN = 10.0
"""Seconds after which a save counts as never served."""
POLL = 0.001
STREAMS, ITEMS, ITEM_PAUSE = 50, 10, 0.004
APART = 0.1
"""Seconds between two reloads in which a stream begun before can end."""
WARM = 50
"""Reloads after which the allocator has seen its worst; memory is compared from there."""
STEPS = ("stage", "export", "activate", "commit", "total")


@dataclass
class Saves:
    """Milliseconds from each save to its serving, and the event loop's worst gap meanwhile; `idle`: without any.
    `whole`: from saving every module at once."""

    served: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)


@dataclass
class Storm:
    """Reloads under load. `ends`: how many streams ended how."""

    reloads: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    passed: int = 0
    alive: int = 0
    leaks: int = 0
    grown: float = 0.0
    gap: float = 0.0


async def save(house: House, large: Large, stamp: int, *, whole: bool = False) -> float:
    """Save a module, or the `whole` of them; returns the milliseconds until it answered. Raises NotTakenError."""
    large.write_aside(stamp, whole=whole)
    began = time.perf_counter()
    large.save()
    while (await house.client.call("many.stamp"))["oldest" if whole else "stamp"] != stamp:
        if time.perf_counter() - began > SERVED_WITHIN:
            raise NotTakenError(f"save {stamp} was not served within {SERVED_WITHIN:g} s")
        await asyncio.sleep(POLL)
    return (time.perf_counter() - began) * 1000


async def save_repeatedly(house: House, large: Large, count: int) -> Saves:
    """Save so many times, with pauses of a length that is in step with nothing."""
    saves = Saves()
    for stamp in (1, 2, 3):
        await save(house, large, stamp)
    for stamp in range(4, 4 + count):
        progress(f"reload: save {stamp - 3} of {count}")
        await house.gap()
        await asyncio.sleep(random.uniform(0.2, 0.4))
        saves.idle.append(await house.gap())
        saves.served.append(await save(house, large, stamp))
        await asyncio.sleep(0.1)  # the old code's end belongs to it
        saves.gaps.append(await house.gap())
    for stamp in range(4 + count, 4 + count + max(5, count // 4)):
        progress("reload: every module at once")
        await asyncio.sleep(random.uniform(0.2, 0.4))
        saves.whole.append(await save(house, large, stamp, whole=True))
    return saves


async def steps(house: House, count: int) -> dict[str, list[float]]:
    """Milliseconds of each step of so many forced reloads."""
    taken: dict[str, list[float]] = {name: [] for name in STEPS}
    for number in range(count):
        progress(f"reload: {number} of {count}, step by step")
        answer = await house.client.call("extensions.reload", {"id": "many", "force": True})
        for name in STEPS:
            taken[name].append(answer["seconds"][name] * 1000)
        await asyncio.sleep(0.1)
    return taken


async def stream(house: House) -> str:
    """One stream, from its beginning to its answer; how it ended."""
    wanted = {"count": ITEMS, "pause": ITEM_PAUSE}
    try:
        async with house.client.stream("many.stream", wanted) as items:
            seen = [item async for item in items]
            answer = await items.result()
    except RpcError as error:
        return "revoked" if error.code == ExtensionReloaded.code else "failed"
    except ConnectionError:
        return "unanswered"
    return "whole" if seen == [{"seq": n, "stamp": answer["stamp"]} for n in range(ITEMS)] else "torn"


async def storm(house: House, large: Large, stamps: range, apart: float) -> Storm:
    """Save and reload with each stamp, so many seconds apart, while streams run one after the other, many at a time."""
    result, stop = Storm(), asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            result.ends[await stream(house)] += 1

    callers = [asyncio.create_task(caller()) for _ in range(STREAMS)]
    unmatched = len(house.client.unmatched)
    await house.gap()
    first = await generation(house)
    resident = house.resident()
    for number, stamp in enumerate(stamps):
        progress(f"reload: {number} of {len(stamps)} under {STREAMS} streams")
        large.write_aside(stamp)
        large.save()
        began = time.perf_counter()
        await house.client.call("extensions.reload", {"id": "many"})
        result.reloads.append((time.perf_counter() - began) * 1000)
        if number == min(WARM, len(stamps) // 2):
            resident = house.resident()
        await asyncio.sleep(apart)
    result.passed = await generation(house) - first
    result.gap = await house.gap()
    stop.set()
    over, stuck = await asyncio.wait(callers, timeout=SERVED_WITHIN)
    for task in stuck:
        task.cancel()
    for task in over:
        task.result()  # a defect of this module must not pass for fewer streams
    result.ends["unanswered"] += len(stuck)
    result.doubled = len(house.client.unmatched) - unmatched
    result.grown = house.resident() - resident
    result.alive = len(await house.generations("jan_many"))
    listed = (await house.client.call("extensions.list"))["extensions"]
    result.leaks = sum(len(row.get("leaks", [])) for row in listed)
    return result


async def generation(house: House) -> int:
    """The number of the one that serves."""
    rows = (await house.client.call("extensions.list"))["extensions"]
    return next(int(row["generation"]) for row in rows if row["id"] == "many")


async def take(folder: Path, saves: int, reloads: int) -> Report:
    large = Large(folder)
    async with running(folder / "data", [large.folder, EXTENSION]) as house:
        saved = await save_repeatedly(house, large, saves)
        taken = await steps(house, saves)
        apart = await storm(house, large, range(10_000, 10_000 + reloads), APART)
        at_once = await storm(house, large, range(20_000, 20_000 + reloads // 10), 0.0)
    rows = [
        spread("save to serving", saved.served),
        spread("the same, every module saved at once", saved.whole),
        spread("longest gap of the event loop around a save", saved.gaps),
        spread("the same without a save", saved.idle),
        *(spread(f"a reload's step: {name}", taken[name]) for name in STEPS),
        spread(f"a reload under {STREAMS} streams", apart.reloads),
        spread("the same, back to back", at_once.reloads),
    ]
    columns = ["", f"{reloads:,}, {APART:g} s apart", f"{reloads // 10:,}, back to back"]
    under = [[name, left, right] for (name, left), (_, right) in zip(counted(apart), counted(at_once), strict=True)]
    tables = [
        Table(f"Hot reload of {large.lines():,} lines, ms", ["", "p50", "p95", "max"], rows),
        Table(f"Reloads under {STREAMS} streams", columns, under),
    ]
    lost = sum(s.ends["unanswered"] + s.ends["torn"] + s.ends["failed"] + s.doubled for s in (apart, at_once))
    reaches = [
        Reach("save to serving, p50", percentile(saved.served, 50), 80, unit="ms"),
        Reach("save to serving, p95", percentile(saved.served, 95), 150, unit="ms"),
        Reach("commit, p95", percentile(taken["commit"], 95), 1, unit="ms"),
        Reach(f"streams lost, torn, failed or doubled in {reloads:,} reloads and more", lost, 0, unit=""),
        Reach("generations in memory afterwards", max(apart.alive, at_once.alive), 2, unit=""),
    ]
    return Report(tables, reaches, [f"{saves} saves of one of {MODULES} modules"])


def counted(storm: Storm) -> list[tuple[str, str]]:
    ends = storm.ends
    counts = {
        "streams answered whole": ends["whole"],
        "cut short with ExtensionReloaded": ends["revoked"],
        "ended with another error": ends["failed"],
        "answered, but items missing or double": ends["torn"],
        "never answered": ends["unanswered"],
        "answers to nothing that was asked": storm.doubled,
        "generations passed through": storm.passed,
        "generations in memory afterwards": storm.alive,
        "leaks the host reports": storm.leaks,
    }
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    rows.append((f"growth after {WARM} reloads (or half of them), MiB", figure(storm.grown)))
    rows.append(("longest gap of the event loop, ms", figure(storm.gap)))
    return rows


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures. Raises NotTakenError."""
    saves, reloads = (10, 60) if quick else (max(40, rounds * 8), 1000)
    load = Load()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(take(Path(folder), saves, reloads))
    progress("")
    report.notes.append(f"busy with other work: {figure(load.cores())} cores")
    return report


def spread(name: str, values: Sequence[float]) -> list[str]:
    return [name, *(figure(value) for value in (percentile(values, 50), percentile(values, 95), max(values)))]


def percentile(values: Sequence[float], rank: int) -> float:
    """A percentile of what was measured, never beyond its largest value."""
    return statistics.quantiles(values, n=100, method="inclusive")[rank - 1]
