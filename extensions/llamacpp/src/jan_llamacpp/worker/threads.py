"""How many CPU threads to compute with, also while other programs use the cores.

ggml's threads wait for each other by spinning, some hundred times a token: one that the operating system has
put aside for another program stalls them all, and with as many threads as cores the speed falls to a tenth.
So the number follows what the rest of the machine leaves. It is read from the kernel's accounting
(`accounting.py`): no trials, no guessing.

Where the system does not tell, the number stays what it was.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from .accounting import Reading, open_accounts, quota

__all__ = ["ThreadGovernor", "usable_cores"]

PERIOD = 0.15
EAGER_PERIOD, EAGER_LOOKS = 0.06, 2
"""After a pause the machine may be another one: the first looks come sooner."""
TELLING_PAUSE = 0.3
"""A shorter one is full of what its end brings: a request is read, the host wakes."""


def usable_cores() -> int:
    """Cores this process may use, hyper-threads counted once where the system tells, within its share. At least 1."""
    share = quota()
    cores = _physical_cores()
    return cores if share is None else max(1, min(cores, int(share)))


def _physical_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        cores = set()
        for cpu in allowed:
            topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
            try:
                package = (topology / "physical_package_id").read_text("utf-8")
                cores.add((package, (topology / "core_id").read_text("utf-8")))
            except OSError:
                return max(1, len(allowed))
        return max(1, len(cores))
    count = os.cpu_count() or 1
    # Without a topology: Apple's chips have no hyper-threads, most others have two a core.
    return max(1, count if platform.machine() == "arm64" else count // 2)


class ThreadGovernor:
    """Says how many threads to use: 1 to `most`, or always `most` with `adapt` False."""

    def __init__(
        self, most: int, *, adapt: bool, accounts: Callable[[], Callable[[], Reading] | None] = open_accounts
    ) -> None:
        self.threads = self.most = most
        self._read = accounts() if adapt and most > 1 else None
        self._last = self._read() if self._read else Reading(0, 0, 0)
        self._foreign = 0.0
        self._eager = 0

    def begin(self) -> bool:
        """Work begins after a pause. True when `threads` has changed: the pause tells what the others do."""
        if self._read is None:
            return False
        then, self._last, self._eager = self._last, self._read(), EAGER_LOOKS
        if self._last.now - then.now < TELLING_PAUSE:
            return False
        self._foreign = _foreign(then, self._last)
        return self._choose(self.most - int(self._foreign + 0.55))

    def look(self, period: float | None = None) -> bool:
        """Look at the machine, at most every `period` seconds. True when `threads` has changed.

        To be called before each step.
        """
        if period is None:
            period = EAGER_PERIOD if self._eager else PERIOD
        if self._read is None or self._now() - self._last.now < period:
            return False
        then, self._last = self._last, self._read()
        self._eager = max(0, self._eager - 1)
        foreign = _foreign(then, self._last)
        # Down at once, up only after a calm while: a stalled barrier costs more than an idle core.
        self._foreign = 0.5 * self._foreign + 0.5 * foreign
        wanted = self.most - int(foreign + 0.55)
        if wanted > self.threads:
            wanted = self.most - int(self._foreign + 0.75)
        return self._choose(wanted)

    def _choose(self, wanted: int) -> bool:
        before, self.threads = self.threads, max(1, min(self.most, wanted))
        return self.threads != before

    def _now(self) -> float:
        return time.monotonic()


def _foreign(then: Reading, now: Reading) -> float:
    """How many cores others kept busy between two readings."""
    return max(0.0, (now.everybody - then.everybody) - (now.own - then.own)) / (now.now - then.now)
