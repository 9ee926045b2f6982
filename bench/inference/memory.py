"""What processes hold of memory, by the kernel's own account. Linux only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from kit import NotTakenError

__all__ = ["resident", "share"]


def resident(pid: int) -> int:
    """Bytes of a process in memory, the file pages it has mapped included. Raises NotTakenError."""
    return _find(Path(f"/proc/{pid}/status"), r"^VmRSS:\s+(\d+) kB")


def share(pids: Iterable[int]) -> int:
    """Bytes of all these processes together, what several of them share counted once (PSS). Raises NotTakenError."""
    return sum(_find(Path(f"/proc/{pid}/smaps_rollup"), r"^Pss:\s+(\d+) kB") for pid in pids)


def _find(path: Path, pattern: str) -> int:
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        raise NotTakenError(f"memory cannot be read from {path}")
    return int(found[1]) * 1024
