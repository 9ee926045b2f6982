"""How fast, and how long still: an average that forgets, computed where progress is shown."""

from __future__ import annotations

__all__ = ["Meter"]

_HALF_LIFE = 3.0


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
