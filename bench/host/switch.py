"""What one busy thread of a plugin costs everybody else's calls: round trips 2 ms apart through a real `jan-sidecar`.

A thread that computes in pure Python gives up the interpreter only when it is asked to, which CPython does after its
switch interval. The sidecar makes that interval shorter than CPython's 5 ms; both are taken here, side by side.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from house import EXTENSION, House, running
from machine import Load
from report import Reach, Report, Table, figure, progress

__all__ = ["measure"]

APART = 0.002
DEFAULT = 0.005
"""Seconds: CPython's own switch interval."""


async def round_trips(house: House, calls: int) -> list[float]:
    """Milliseconds of so many calls, one after the other, APART."""
    taken = []
    for _ in range(calls):
        await asyncio.sleep(APART)
        began = time.perf_counter()
        await house.client.call("bench.nothing")
        taken.append((time.perf_counter() - began) * 1000)
    return sorted(taken)


async def take(rounds: int, calls: int) -> tuple[float, dict[tuple[int, float], list[list[float]]]]:
    """The sidecar's own interval (s), and the sorted round trips of each round by (busy threads, interval)."""
    with tempfile.TemporaryDirectory() as folder:
        async with running(Path(folder), [EXTENSION]) as house:
            own = float((await house.client.call("bench.strain", {"threads": 0}))["interval"])
            found: dict[tuple[int, float], list[list[float]]] = {}
            for turn in range(rounds):
                for threads, interval in ((0, own), (1, own), (1, DEFAULT), (0, DEFAULT)):
                    progress(f"switch: {turn} of {rounds}, {threads} busy, {interval * 1000:g} ms")
                    await house.client.call("bench.strain", {"threads": threads, "interval": interval})
                    await round_trips(house, 10)
                    found.setdefault((threads, interval), []).append(await round_trips(house, calls))
    progress("")
    return own, found


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures. Raises NotTakenError when there is no sidecar to take them with."""
    load = Load()
    own, found = asyncio.run(take(rounds, 50 if quick else 250))
    rows = []
    medians: dict[tuple[int, float], float] = {}
    for (threads, interval), each in found.items():
        medians[threads, interval] = min(statistics.median(taken) for taken in each)
        p95 = min(taken[len(taken) * 95 // 100] for taken in each)
        slower = medians[threads, interval] - medians[0, own]
        rows.append(
            [
                f"{threads or 'no'} busy thread{'' if threads == 1 else 's'}, switch interval {interval * 1000:g} ms",
                *(figure(value) for value in (medians[threads, interval], p95, slower)),
            ]
        )
    columns = ["", "round trip, ms: median", "p95", "slower than undisturbed"]
    reach = Reach("slower by one busy thread", medians[1, own] - medians[0, own], 1, unit="ms")
    notes = [f"best of {rounds} interleaved rounds; busy with other work: {figure(load.cores())} cores"]
    return Report([Table("Calls beside a thread that never rests", columns, rows)], [reach], notes)
