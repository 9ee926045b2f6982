"""How fast bytes may come: token buckets, one for all jobs together and one for each.

A bucket blocks the threads that ask it and shares fairly between jobs, however many connections each has. It moves no
bytes, and it keeps no rate: rates are read anew at each turn, so that a change of them counts within `_TURN`.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

__all__ = ["Bucket", "Limits"]

_TURN = 0.25
"""Seconds that a thread sleeps at most before it looks at the rate again."""
_BURST = 0.25
"""Seconds of unused rate that may be used at once later."""
_SHORT = 0.005
_LEAST_GRAIN = 4096


class Bucket:
    """A rate (bytes/s, 0: none) shared by jobs. Thread-safe.

    Who asks may pass as soon as nothing is owed, and then owes what it took: so an amount larger than the burst passes
    too. Whose turn it is follows from start-time fair queueing (Goyal, Vin, Cheng 1996): the job that was served least.
    """

    def __init__(self, rate: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._tokens = 0.0
        self._at = clock()
        self._waiting: Counter[str] = Counter()
        self._tags: dict[str, float] = {}
        self._virtual = 0.0

    def spend(self, n: int, wait: Callable[[float], bool], who: str = "") -> bool:
        """Block until `n` bytes of the job `who` may pass. `wait(seconds)` sleeps, and answers True when it was
        stopped; then this returns False at once."""
        if self.rate() <= 0:
            return True
        with self._lock:
            if not self._waiting[who]:
                self._tags[who] = max(self._tags.get(who, 0.0), self._virtual)
            self._waiting[who] += 1
        try:
            while True:
                with self._lock:
                    pause = self._ask(n, who)
                if pause <= 0:
                    return True
                if wait(pause):
                    return False
        finally:
            with self._lock:
                self._waiting[who] -= 1

    def _ask(self, n: int, who: str) -> float:
        """Take `n` bytes and return 0, or the seconds after which to ask again."""
        rate, now = self.rate(), self._clock()
        elapsed, self._at = max(0.0, now - self._at), now
        if rate <= 0:
            self._tokens = 0.0
            return 0.0
        self._tokens = min(self._tokens + elapsed * rate, rate * _BURST)
        if self._tokens < 0:
            return min(_TURN, max(0.001, -self._tokens / rate))
        if any(self._tags[other] < self._tags[who] for other, count in self._waiting.items() if count):
            return _SHORT  # it is another's turn, who is about to wake
        self._tokens -= n
        self._virtual = max(self._virtual, self._tags[who])
        self._tags[who] += n
        for idle in [job for job, tag in self._tags.items() if tag <= self._virtual and not self._waiting[job]]:
            del self._tags[idle], self._waiting[idle]
        return 0.0


class Limits:
    """What one job may spend: its own bucket, then the one of all jobs."""

    def __init__(
        self, job_id: str, rate: Callable[[], int], everybody: Bucket, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job_id = job_id
        self._buckets = (Bucket(rate, clock), everybody)

    def spend(self, n: int, wait: Callable[[float], bool]) -> None:
        """Block the calling thread until `n` bytes may pass, or `wait(seconds)` answers True: it was stopped."""
        for bucket in self._buckets:
            if not bucket.spend(n, wait, self._job_id):
                return

    def grain(self, most: int) -> int:
        """How many bytes (at most `most`) to read before the next `spend`, so that a slow rate flows evenly."""
        rates = [rate for bucket in self._buckets if (rate := bucket.rate()) > 0]
        return min(most, max(_LEAST_GRAIN, round(min(rates) * _BURST))) if rates else most
