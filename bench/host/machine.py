"""The machine that figures were taken on, and how much of it others used meanwhile."""

from __future__ import annotations

import os
import platform
import resource
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["Load", "describe"]


def describe() -> str:
    """Processor, cores, system and interpreter, in one line."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else ""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model or platform.machine()}), {platform.system()} {platform.release()}, {python}"


class Load:
    """What other processes compute between its beginning and `cores()`. Linux only; None elsewhere.

    Ours are this process and those it has waited for, theirs included; and those of `others`, which still run.
    """

    def __init__(self, others: Callable[[], Iterable[int]] = tuple) -> None:
        self._others = others
        self._began, self._busy, self._own = time.monotonic(), _busy(), self.own(others())

    def cores(self) -> float | None:
        """Cores kept busy by others, on average since the beginning."""
        now = _busy()
        if self._busy is None or now is None:
            return None
        foreign = now - self._busy - (self.own(self._others()) - self._own)
        return max(0.0, foreign / (time.monotonic() - self._began))

    @staticmethod
    def own(others: Iterable[int] = ()) -> float:
        """Seconds of computing so far of this process, of those it has waited for, and of `others`."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(u.ru_utime + u.ru_stime for u in used) + sum(map(_spent, others))


def _busy() -> float | None:
    """Seconds of computing of all cores since boot."""
    try:
        words = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _spent(pid: int) -> float:
    """Seconds of computing of a process that runs, without its children's."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
