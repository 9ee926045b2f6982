"""What a hook call costs: ours beside bare pluggy, for 1, 5 and 20 implementations that do nothing.

Bare pluggy calls plain functions in turn: no deadline, no timing, no isolation, nothing awaited; the first exception
ends all. "gathered" is the least an asynchronous host would do with it: coroutines from pluggy, awaited by
asyncio.gather. Ours: every implementation has its own outcome, deadline, lease, figures and border.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pluggy
from machine import Load
from report import Reach, Report, Table, figure, progress

from jan_core import hookimpl, hookspecs
from jan_core.dispatch import Dispatcher
from jan_core.extension import Generation
from jan_core.types import Admission, DownloadFile, DownloadJob, ModelContext, ModelRecord

__all__ = ["measure"]

COUNTS = (1, 5, 20)
SLICES = 10
"""Short rounds for each round asked for: of many short ones some fall between what else the machine does."""
JOB = DownloadJob("1", DownloadFile("f"), "f", 0)
MODELS = [ModelRecord("m", "m")]
YES = Admission(True)
Call = Callable[[], Awaitable[Any]]

BARE, GATHERED = "bare pluggy, plain functions", "pluggy, coroutines gathered"
BROADCAST, FIRST, PIPELINE = "broadcast", "first (nobody answers)", "pipeline (nobody changes)"
WAITING, PLAIN = "broadcast, each waits once", "broadcast, plain functions in threads"


class Functions:
    """Plain functions, as pluggy calls them."""

    @hookimpl
    def jan_admit_download(self, job: DownloadJob) -> Admission:
        return YES


class Coroutines:
    """The same on the event loop, and one hook of each other mode."""

    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Admission:
        return YES

    @hookimpl
    async def jan_adopt_file(self, sha256: str) -> None:
        return None

    @hookimpl
    async def jan_rank_models(self, models: list[ModelRecord]) -> None:
        return None


class Waiting:
    @hookimpl
    async def jan_admit_download(self, job: DownloadJob) -> Admission:
        await asyncio.sleep(0)
        return YES


def bare(plugin: type, count: int) -> pluggy.PluginManager:
    manager = pluggy.PluginManager("jan")
    manager.add_hookspecs(hookspecs)
    for _ in range(count):
        manager.register(plugin())
    return manager


def ours(plugin: type, count: int) -> Dispatcher:
    dispatcher = Dispatcher()
    for n in range(count):
        dispatcher.swap(None, Generation(f"e{n:02}", 1, plugin()))
    return dispatcher


def calls(count: int) -> dict[str, Call]:
    """Everything that is measured for so many implementations."""
    plain, coroutines = bare(Functions, count).hook, bare(Coroutines, count).hook
    quick, waiting, threads = ours(Coroutines, count), ours(Waiting, count), ours(Functions, count)
    context = ModelContext()

    async def call_bare() -> Any:
        return plain.jan_admit_download(job=JOB)

    async def call_gathered() -> Any:
        return await asyncio.gather(*coroutines.jan_admit_download(job=JOB))

    return {
        BARE: call_bare,
        GATHERED: call_gathered,
        FIRST: lambda: quick.first("jan_adopt_file", sha256="", size=0),
        PIPELINE: lambda: quick.pipeline("jan_rank_models", "models", MODELS, context=context),
        BROADCAST: lambda: quick.broadcast("jan_admit_download", job=JOB),
        WAITING: lambda: waiting.broadcast("jan_admit_download", job=JOB),
        PLAIN: lambda: threads.broadcast("jan_admit_download", job=JOB),
    }


async def seconds_for(call: Call, number: int) -> float:
    """One call's share of so many in a row."""
    began = time.perf_counter()
    for _ in range(number):
        await call()
    return (time.perf_counter() - began) / number


async def best_of(rounds: int, number: int) -> dict[int, dict[str, float]]:
    """The best of interleaved rounds, in seconds, by implementations and kind of call."""
    todo = {count: calls(count) for count in COUNTS}
    best: dict[int, dict[str, float]] = {count: {} for count in COUNTS}
    for turn in range(rounds * SLICES):
        progress(f"dispatch: {turn} of {rounds * SLICES}")
        for count, kinds in todo.items():
            for name, call in kinds.items():
                taken = await seconds_for(call, max(5, number // count // (20 if name == PLAIN else 1)))
                best[count][name] = min(taken, best[count].get(name, taken))
    progress("")
    return best


def measure(rounds: int, quick: bool) -> Report:
    """Take all figures, in this process."""
    load = Load()
    best = asyncio.run(best_of(rounds, 200 if quick else 1000))
    rows = []
    for name in best[COUNTS[0]]:
        cells = [figure(best[count][name] * 1e6) for count in COUNTS]
        over = [figure(best[count][name] / best[count][BARE]) for count in COUNTS]
        rows.append([name, *cells, *over])
    columns = ["", *(f"{n}: us" for n in COUNTS), *(f"{n}: × bare" for n in COUNTS)]
    five = best[5]
    reaches = [
        Reach("5 in turn (first), over the same gathered", five[FIRST] / five[GATHERED], 1),
        Reach("5 at once (broadcast), over the same gathered", five[BROADCAST] / five[GATHERED], 2),
    ]
    notes = [f"best of {rounds * SLICES} interleaved rounds; busy with other work: {figure(load.cores())} cores"]
    return Report([Table("One hook call, by the number of implementations", columns, rows)], reaches, notes)
