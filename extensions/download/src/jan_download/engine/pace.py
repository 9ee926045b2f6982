"""How many connections a job uses: one more for as long as that brings a tenth more.

Arithmetic over what was received; it opens nothing and picks no source.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Pace"]

_WINDOW = 0.5
"""Seconds over which goodput is measured, after a change has had as long to settle."""
_GROWTH = 1.1
_DROP = 0.7
_HOLD, _LONGEST_HOLD = 5.0, 60.0


class Pace:
    """`target` is the number of connections to use now, 1 to `most`.

    One is added, and the goodput (bytes/s) after is compared with that before: a tenth more, and another is tried;
    less, and it goes back and is left alone for a while, longer each time, or until goodput falls by a third.
    `first`: how many to begin with.
    """

    def __init__(self, most: int, first: int = 1) -> None:
        self.most = max(1, most)
        self.target = max(1, min(first, self.most))
        self._samples: deque[tuple[float, int]] = deque()
        self._since = -1.0
        self._before = 0.0
        self._until = 0.0
        self._hold = _HOLD
        self._tried = False

    def note(self, now: float, received: int, working: int) -> int:
        """Tell how many bytes came in all by `now` (s, monotonic) and how many connections bring some; returns the
        target."""
        self._samples.append((now, received))
        while now - self._samples[0][0] > _WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        if working < self.target:
            self._since = -1.0  # what was asked for is not there yet, so there is nothing to judge
        elif self._since < 0:
            self._since = now
        elif now - self._since >= 2 * _WINDOW:
            self._judge(now)
        return self.target

    def limit(self, most: int) -> None:
        """Use no more than `most` from now on."""
        self.most = max(1, most)
        self.target = min(self.target, self.most)

    @property
    def goodput(self) -> float:
        """Bytes/s over the last half second."""
        if len(self._samples) < 2:
            return 0.0
        (begun, less), (ended, more) = self._samples[0], self._samples[-1]
        return (more - less) / (ended - begun) if ended > begun else 0.0

    def _judge(self, now: float) -> None:
        goodput = self.goodput
        if now < self._until and goodput >= self._before * _DROP:
            return
        self._since = -1.0
        if now < self._until:  # the way has changed: find out anew
            self._until, self._hold, self._tried = 0.0, _HOLD, False
        elif self._tried and goodput < self._before * _GROWTH:
            self.target = max(1, self.target - 1)
            self._until, self._tried = now + self._hold, False
            self._hold = min(2 * self._hold, _LONGEST_HOLD)
            return
        self._before, self._tried = goodput, self.target < self.most
        self.target = min(self.target + 1, self.most)
