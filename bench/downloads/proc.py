"""What a process has used so far, from /proc. Linux only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from client import NotTakenError

__all__ = ["computed", "forget_peak", "peak", "resident", "written"]


def computed(pid: int) -> float:
    """Seconds of computing of all its threads, ended ones too; to 10 ms."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> float:
    """MiB in memory now; of its own, files that it maps too."""
    return _status(pid, "VmRSS")


def peak(pid: int) -> float:
    """MiB that it had in memory at most, since it began or since `forget_peak`."""
    return _status(pid, "VmHWM")


def forget_peak(pid: int) -> None:
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    except OSError as error:
        raise NotTakenError(f"the peak of memory cannot be reset here: {error}") from error


def written(pid: int) -> int:
    """Bytes it has handed to `write` and its like, sockets not counted."""
    found = re.search(r"^wchar: (\d+)", _read(pid, "io"), re.MULTILINE)
    assert found
    return int(found[1])


def _status(pid: int, name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB", _read(pid, "status"), re.MULTILINE)
    if found is None:
        raise NotTakenError(f"process {pid} has ended")
    return int(found[1]) / 1024


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise NotTakenError(f"/proc tells nothing of process {pid}: {error}") from error
