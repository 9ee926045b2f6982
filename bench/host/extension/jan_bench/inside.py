"""What can be seen only from inside the process: how long the event loop was held up, and which code is in memory."""

from __future__ import annotations

import asyncio
import gc
import time
import types

import msgspec

from jan_core import Context, Empty, method

TICK = 0.001


class Gap(msgspec.Struct):
    """The longest time between two ticks, and how many there were."""

    seconds: float
    ticks: int


class Package(msgspec.Struct):
    """A package by the name its author gave it."""

    name: str


class Generations(msgspec.Struct):
    """The generations of which a class or a function is still in memory."""

    numbers: list[int]


class Inside:
    """`begin` comes before the first call."""

    def __init__(self) -> None:
        self._ticking = False
        self._gap = Gap(0.0, 0)

    def begin(self, ctx: Context) -> None:
        self._ctx = ctx

    @method("bench.gap")
    async def gap(self, params: Empty) -> Gap:
        """The longest gap of a ticker of 1 ms since the last call; the first call starts it."""
        if not self._ticking:
            self._ticking = True
            self._ctx.tasks.start_soon(self._tick)
        gap, self._gap = self._gap, Gap(0.0, 0)
        return gap

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            self._gap.seconds = max(self._gap.seconds, now - last)
            self._gap.ticks += 1
            last = now

    @method("bench.generations")
    async def generations(self, params: Package) -> Generations:
        """Which generations of a package are in memory, cycles collected. Holds up everything for some time."""
        gc.collect()
        found = set()
        for thing in gc.get_objects():
            if isinstance(thing, type | types.FunctionType) and isinstance(thing.__module__, str):
                package, _, number = thing.__module__.partition(".")[0].partition("@g")
                if package == params.name and number:
                    found.add(int(number))
        return Generations(sorted(found))
