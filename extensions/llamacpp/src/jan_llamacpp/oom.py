"""How many processes the kernel has killed for memory, as far as it concerns this one. Linux; elsewhere always 0.

A process killed for memory ends like any killed with SIGKILL. The kernel's own counters tell the two apart, without
its log, which mostly only root may read: a cgroup's counts those in it, whichever limit was met; where this process is
in none with one, there is the whole machine's.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["oom_kills"]


def oom_kills(root: Path = Path("/")) -> int:
    """The counter now. `root`: where `proc` and `sys` are."""
    for path in (*_cgroups(root), root / "proc/vmstat"):
        with suppress(OSError, ValueError):
            for line in path.read_text("ascii").splitlines():
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def _cgroups(root: Path) -> list[Path]:
    """The files that may have a counter: of version 2 and of version 1, nearest first."""
    groups = root / "sys/fs/cgroup"
    found: list[Path] = []
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2: one hierarchy
                found.append(groups / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                found.append(groups / "memory" / path.lstrip("/") / "memory.oom_control")
    return found
