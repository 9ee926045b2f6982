"""Requests and streams over standard input and output: ours beside the others, one C client for all.

Rounds are interleaved: each takes every figure of every server once. What is printed is the best round: the smallest of
the rounds' medians, the largest of their rates.

Where the scheduler puts client and server decides about a small round trip more than the server does (one core: no core
has to be woken). So it is taken twice, and the reach is judged where all share that condition, on one core.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from client import Client, Measured, NotTakenError
from machine import Load
from report import Reach, Report, Table, figure, progress, ratio
from servers import ASYNC, JSON, PYGLS, PYLSP, RAW, RAW_STREAM, SDK, SYNC, THREADS, Server

__all__ = ["measure"]


@dataclass(frozen=True)
class Figure:
    """A column. `take` reads it out of what the client measured; the best is the largest or the smallest."""

    title: str
    run: str
    take: Callable[[Measured], float]
    largest: bool = False


@dataclass(frozen=True)
class Run:
    """One run of the client; several figures may come from it."""

    mode: Any
    payload: Any = "small"
    pause_us: int = 0
    one_core: bool = False


RUNS = {
    "one core": Run("sequential", one_core=True),
    "round trip": Run("sequential"),
    "spaced": Run("sequential", pause_us=2000),
    "pipelined": Run("pipelined"),
    "large": Run("sequential", "64 KiB"),
    "large pipelined": Run("pipelined", "64 KiB"),
    "stream": Run("stream"),
}

TRIP = Figure("round trip on one core, µs", "one core", lambda m: m.median_us)
P99 = Figure("p99", "one core", lambda m: m.p99_us)
FREE = Figure("anywhere, µs", "round trip", lambda m: m.median_us)
SPACED = Figure("spaced 2 ms, µs", "spaced", lambda m: m.median_us)
PIPELINED = Figure("req/s, 64 in flight", "pipelined", lambda m: m.rate, largest=True)
CPU = Figure("CPU, µs/req", "pipelined", lambda m: m.cpu_us)
LARGE = Figure("64 KiB, µs", "large", lambda m: m.median_us)
LARGE_RATE = Figure("64 KiB, req/s", "large pipelined", lambda m: m.rate, largest=True)
ITEMS = Figure("items/s", "stream", lambda m: m.rate, largest=True)
ITEM_CPU = Figure("CPU, µs/item", "stream", lambda m: m.cpu_us)
PEAK = Figure("peak, MiB", "round trip", lambda m: m.peak_kib / 1024)
COLUMNS = (TRIP, P99, FREE, SPACED, PIPELINED, CPU, LARGE, LARGE_RATE, ITEMS, ITEM_CPU, PEAK)
COMPARED = (TRIP, FREE, SPACED, PIPELINED, CPU, LARGE, LARGE_RATE, ITEMS, ITEM_CPU, PEAK)

QUIET = 0.3
"""Cores that others may keep busy: with more, a rate tells about them."""


class Results:
    """What every round gave for every server and run, and what went wrong."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], list[Measured]] = {}
        self.failures: dict[tuple[str, str], str] = {}

    def take(self, client: Client, server: Server, name: str, millis: int) -> None:
        run = RUNS[name]
        how: dict[str, Any] = {"millis": millis, "warm": millis // 3}
        try:
            measured = client.run(server, run.mode, run.payload, pause_us=run.pause_us, one_core=run.one_core, **how)
        except NotTakenError as error:
            self.failures[server.name, name] = str(error)
        else:
            self._taken.setdefault((server.name, name), []).append(measured)

    def best(self, server: str, wanted: Figure) -> float | None:
        """The best round; None when there is none, or when this machine cannot tell."""
        values = [wanted.take(measured) for measured in self._taken.get((server, wanted.run), [])]
        known = [value for value in values if value > 0]
        return (max(known) if wanted.largest else min(known)) if known else None


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures. Raises NotTakenError when there is nothing to take them with."""
    results, loads = Results(), []
    compared = list(servers.available())
    with tempfile.TemporaryDirectory() as folder:
        client = Client.build(Path(folder))
        for number in range(rounds):
            load = Load()
            for server in compared:
                progress(f"rpc: round {number + 1} of {rounds}, {server.name}")
                for name in runs_of(server):
                    results.take(client, server, name, 60 if quick else 300)
            loads.append(load.cores())
    progress("")
    rows = [[s.name, *(figure(results.best(s.name, column)) for column in COLUMNS)] for s in compared]
    tables = [Table("Requests and streams", ["", *(column.title for column in COLUMNS)], rows), compare(results)]
    notes = [f"best of {rounds} interleaved rounds; busy with other work: {', '.join(map(figure, loads))} cores"]
    if min((load for load in loads if load is not None), default=0.0) > QUIET:
        notes.append("**no round was quiet: rates, and what is judged by them, mean little; medians and CPU hold**")
    notes += [f"{server}, {run}: {why}" for (server, run), why in results.failures.items()]
    return Report(tables, reaches(results), notes)


def runs_of(server: Server) -> list[str]:
    """What can be asked of it."""
    return [name for name, run in RUNS.items() if (server.stream if run.mode == "stream" else server.echo)]


def compare(results: Results) -> Table:
    """Ours against each: how many times as fast, or as small."""
    rows = []
    for other in (RAW, RAW_STREAM, JSON, PYLSP, PYGLS, SDK, THREADS):
        cells = []
        for column in COMPARED:
            ours, theirs = results.best(SYNC, column), results.best(other, column)
            better = ratio(ours, theirs) if column.largest else ratio(theirs, ours)
            cells.append(figure(better))
        if any(cell != "-" for cell in cells):
            rows.append([other, *cells])
    titles = [column.title for column in COMPARED]
    return Table("How many times better `ours, sync` is (below 1: worse)", ["beside", *titles], rows)


def reaches(results: Results) -> list[Reach]:
    """The reach of the parts measured here."""

    def over(ours: str, theirs: str, wanted: Figure) -> float | None:
        return ratio(results.best(ours, wanted), results.best(theirs, wanted))

    return [
        Reach("round trip on one core, sync, over the raw pipe's", over(SYNC, RAW, TRIP), 3.5, moonshot=2.2),
        Reach("64 in flight, sync, over the json loop", over(SYNC, JSON, PIPELINED), 5, at_least=True, moonshot=7),
        Reach("64 in flight, sync, over pygls", over(SYNC, PYGLS, PIPELINED), 120, at_least=True, moonshot=200),
        Reach("64 in flight, sync, over mcp", over(SYNC, SDK, PIPELINED), 150, at_least=True, moonshot=250),
        Reach("64 in flight, async, over the json loop", over(ASYNC, JSON, PIPELINED), 1.5, at_least=True, moonshot=4),
        Reach("64 in flight, async, over pygls' sync", over(ASYNC, PYGLS, PIPELINED), 40, at_least=True),
        Reach("stream items, over the json loop", over(SYNC, JSON, ITEMS), 4, at_least=True),
        Reach("stream items, over mcp", over(SYNC, SDK, ITEMS), 180, at_least=True, moonshot=300),
        Reach("64 KiB requests, over the json loop", over(SYNC, JSON, LARGE_RATE), 2, at_least=True, moonshot=3),
        Reach("peak memory, over mcp's", over(SYNC, SDK, PEAK), 0.45, moonshot=0.3),
    ]
