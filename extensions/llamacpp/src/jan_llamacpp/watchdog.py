"""Finds a worker that stands still: one that answers nobody, and one that answers but gets nothing done.

Fed by `client.py` while it waits for something; it ends nothing itself. Time is counted in ticks of our own event loop
and not on a clock: when the whole machine slept, or this process was stopped, the worker is not blamed for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from .worker.reply import Stats

__all__ = ["Watchdog"]

SILENCE_SECONDS = 60.0
"""The worker's reader answers a question at once; the longest it does in between is to render a template."""
TICKS = 4
"""Questions in a row that are not answered."""


class Watchdog:
    """`limit` (seconds, above 0): how long a step, or a part of a load, may take.

    While `waiting()`, `ask()` is called now and then and must bring about a call of `heard` (with `loading`: before
    the model is there); `hung(how)` is called once, when the worker stands still.
    """

    def __init__(
        self, limit: float, *, waiting: Callable[[], bool], ask: Callable[[], None], hung: Callable[[str], None]
    ) -> None:
        self._limit, self._waiting, self._ask, self._hung = limit, waiting, ask, hung
        self._tick = min(limit, SILENCE_SECONDS) / TICKS
        self._patience = math.ceil(limit / self._tick)
        self._timer: asyncio.TimerHandle | None = None
        self._asked = self._silent = self._still = 0
        self._work = 0
        self._steps = -1

    def start(self) -> None:
        """Something is waited for now."""
        if self._timer is None:
            self._asked = self._silent = self._still = 0
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._on_tick)

    def stop(self) -> None:
        """There is no worker any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def worked(self) -> None:
        """The worker sent a part of what is waited for."""
        self._work += 1

    def heard(self, stats: Stats, *, loading: bool) -> None:
        """The answer to `ask`."""
        self._asked = self._silent = 0
        done = stats.steps + self._work
        busy = loading or stats.active or stats.queued or stats.step_age
        if done != self._steps or not busy:
            self._steps, self._still = done, 0
            return
        self._still += 1
        if self._still >= self._patience:
            self._end(f"it got nothing done for {self._limit:g} seconds")

    def _on_tick(self) -> None:
        self._timer = None
        if not self._waiting():
            return
        self._silent += self._asked
        if self._silent >= TICKS:
            self._end(f"it did not answer for {self._tick * TICKS:g} seconds")
            return
        if not self._asked:
            self._asked = 1
            self._ask()
        self._timer = asyncio.get_running_loop().call_later(self._tick, self._on_tick)

    def _end(self, how: str) -> None:
        self.stop()
        self._hung(how)
