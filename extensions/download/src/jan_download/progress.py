"""How fast, how long still, and how often it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["GAP", "Meter", "Teller"]

GAP = 0.25
"""Seconds between two tellings about the same job."""
_HALF_LIFE = 3.0

T = TypeVar("T")


class Meter:
    """Speed of one run as an exponential moving average with a half-life of 3 s.

    The first estimate of the time left comes after 3 s: before that it would be a guess.
    """

    def __init__(self, offset: int, now: float) -> None:
        self.speed = 0.0
        self._began = self._at = now
        self._offset = offset

    def add(self, offset: int, now: float) -> None:
        """Note that `offset` bytes are there at time `now` (s, monotonic). An offset that went back counts
        as no progress."""
        elapsed = now - self._at
        if elapsed <= 0:
            return
        rate = max(0, offset - self._offset) / elapsed
        old = 0.5 ** (elapsed / _HALF_LIFE)
        # While there is little history, weigh the new rate as if what there is were all.
        warm = 1 - 0.5 ** ((now - self._began) / _HALF_LIFE)
        share = min(1.0, (1 - old) / warm)
        self.speed += (rate - self.speed) * share
        self._at, self._offset = now, offset

    def eta(self, remaining: int) -> float | None:
        """Seconds until `remaining` bytes are there; None when that cannot be told."""
        if remaining < 0 or self.speed < 1 or self._at - self._began < _HALF_LIFE:
            return None
        return remaining / self.speed


class Teller(Generic[T]):
    """Passes on how things stand, each at most once in `GAP`: what comes faster is told as it stands then.

    Runs on the event loop. Nothing is told while nothing comes.
    """

    def __init__(self, tell: Callable[[T], None], loop: asyncio.AbstractEventLoop) -> None:
        self._tell, self._loop = tell, loop
        self._timers: dict[str, asyncio.TimerHandle] = {}
        """By id; there for as long as it was told of a moment ago."""
        self._pending: dict[str, T] = {}

    def tell(self, id_: str, news: T) -> None:
        """Tell `news` of `id_` now, or as soon as it may be."""
        if id_ in self._timers:
            self._pending[id_] = news
        else:
            self._timers[id_] = self._loop.call_later(GAP, self._due, id_)
            self._tell(news)

    def forget(self, id_: str) -> None:
        """Tell nothing more of `id_` that was not told yet."""
        self._pending.pop(id_, None)

    def close(self) -> None:
        """Tell what waits, now."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        pending, self._pending = self._pending, {}
        for news in pending.values():
            self._tell(news)

    def _due(self, id_: str) -> None:
        del self._timers[id_]
        if id_ in self._pending:
            self.tell(id_, self._pending.pop(id_))
