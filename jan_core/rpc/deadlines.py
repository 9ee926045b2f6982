"""Ends calls that take too long. One timer for all of them: a timer for each would cost as much as a quick call.

Knows only that something has a deadline and can be told that it has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Deadlines"]


class Deadlines:
    """Calls that may not take for ever, by what to call when they have."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, expire: Callable[[], None], seconds: float) -> None:
        """Call `expire` in `seconds`, unless it is removed before."""
        due = self._due[expire] = self._loop.time() + seconds
        if self._timer is None or due < self._timer.when():
            self._set(due)

    def remove(self, expire: Callable[[], None]) -> None:
        """It has ended in time. The timer is left alone: it will find nothing to do."""
        self._due.pop(expire, None)

    def _set(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        for expire in [expire for expire, due in self._due.items() if due <= now]:
            del self._due[expire]
            expire()
        if self._due:
            self._set(min(self._due.values()))
