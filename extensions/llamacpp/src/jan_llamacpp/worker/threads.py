"""How many CPU threads to compute with, also while other programs use the cores.

ggml's threads wait for each other by spinning, some hundred times a token: one that the operating system has
put aside for another program stalls them all, and with as many threads as cores the speed falls to a tenth.
So the number follows what the rest of the machine leaves. It is read from the kernel's accounting: no trials,
no guessing.

Linux only (`/proc/stat`); elsewhere the number stays what it was. Containers that hide other programs' use,
too.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import weakref
from pathlib import Path

__all__ = ["ThreadGovernor", "physical_cores"]

PERIOD = 0.15


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads counted once where the system tells. At least 1."""
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

    def __init__(self, most: int, *, adapt: bool) -> None:
        self.threads = self.most = most
        self._stat: int | None = None
        if adapt and most > 1 and sys.platform == "linux":
            try:
                self._stat = os.open("/proc/stat", os.O_RDONLY | os.O_CLOEXEC)
                weakref.finalize(self, os.close, self._stat)
                self._last = self._read()
            except (OSError, ValueError, IndexError):
                self._stat = None
        self._foreign = 0.0

    def look(self, period: float = PERIOD) -> bool:
        """Look at the machine, at most every `period` seconds. True when `threads` has changed.

        To be called before a step: after a pause it then knows what others did meanwhile.
        """
        if self._stat is None or self._now() - self._last[0] < period:
            return False
        now, busy, own = self._read()
        then, busy_then, own_then = self._last
        self._last = now, busy, own
        foreign = max(0.0, (busy - busy_then) - (own - own_then)) / (now - then)
        # Down at once, up only after a calm while: a stalled barrier costs more than an idle core.
        self._foreign = 0.5 * self._foreign + 0.5 * foreign
        wanted = self.most - int(foreign + 0.55)
        if wanted > self.threads:
            wanted = self.most - int(self._foreign + 0.75)
        wanted = max(1, min(self.most, wanted))
        changed = wanted != self.threads
        self.threads = wanted
        return changed

    def _now(self) -> float:
        return time.monotonic()

    def _read(self) -> tuple[float, float, float]:
        """Now; CPU seconds spent by everybody; by this process."""
        assert self._stat is not None
        ticks = [int(field) for field in os.pread(self._stat, 256, 0).split(b"\n", 1)[0].split()[1:9]]
        times = os.times()
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, times.user + times.system
