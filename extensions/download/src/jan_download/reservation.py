"""Whether there is room on the disk for a job, after what others still need. It allocates nothing and asks no disk:
figures come in, a decision goes out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from .errors import DiskFull
from .records import Job

__all__ = ["check_capacity", "gigabytes", "lacking", "reserve_of"]

_RESERVE = 2 << 30


def reserve_of(setting: int, capacity: int) -> int:
    """Bytes that stay free on a disk of `capacity` bytes, as `settings.reserve_bytes` says."""
    return setting if setting >= 0 else min(_RESERVE, capacity // 20)


def check_capacity(size: int, capacity: int, reserve: int) -> None:
    """Raises DiskFull when a file of `size` bytes could not be there even if nothing else was."""
    if size + reserve > capacity:
        raise DiskFull(
            f"the file has {gigabytes(size)}, and the whole disk {gigabytes(capacity)}, "
            f"of which {gigabytes(reserve)} are to stay free",
            needed=size + reserve,
            free=capacity,
        )


def lacking(
    job: Job, ahead: Iterable[Job], held: Callable[[str], int] | Mapping[str, int], free: int, reserve: int
) -> int:
    """Bytes that must become free before `job` may run; 0 or less: it may.

    `ahead`: jobs that are served before it, whose remainders are promised. `held(key)`: bytes of the disk that a
    partial file has already. Jobs that share a partial file share its remainder; an unknown size promises nothing.
    """
    of = held.__getitem__ if isinstance(held, Mapping) else held
    remainders = {each.partial: max(0, each.expected - of(each.partial)) for each in (*ahead, job) if each.expected}
    return sum(remainders.values()) + reserve - free if remainders.get(job.partial) else 0


def gigabytes(count: int) -> str:
    """A number of bytes for people."""
    if count < 1_000_000:
        return f"{count} bytes"
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
