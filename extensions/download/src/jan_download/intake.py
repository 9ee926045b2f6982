"""Whether a new job may be: what there is already for the same file, and whether there is room for it."""

from __future__ import annotations

from .errors import DiskFull, DownloadConflict
from .journal import Journal
from .names import same_name
from .records import LIVE, Job
from .store import Store

__all__ = ["admit_new"]


def admit_new(job: Job, journal: Journal, store: Store, reserve: int) -> Job | None:
    """The job that brings or brought the same file already; None when `job` is new and may be added.

    Raises DownloadConflict when the destination belongs to another file, DiskFull when there is no room.
    """
    for other in journal.related(job.destination, job.sha256):
        here = same_name(other.destination) == same_name(job.destination)
        same = other.sha256 == job.sha256 if other.sha256 and job.sha256 else bool(other.url) and other.url == job.url
        if other.state in (*LIVE, "failed"):
            if here and same:
                return other
            if here and other.state != "failed":
                raise DownloadConflict(
                    f"{other.destination} is being fetched from elsewhere", job=other.id, state=other.state
                )
            if not here and other.state in LIVE:
                raise DownloadConflict(
                    f"the same file is being fetched as {other.destination}", job=other.id, state=other.state
                )
        elif other.state == "completed" and here and same and store.final(other.destination).is_file():
            return other
    if store.final(job.destination).exists():
        raise DownloadConflict(f"there is another file {job.destination} already", destination=job.destination)
    if job.size:
        free = store.free()
        promised = sum(max(0, other.expected - other.offset) for other in journal.jobs(LIVE))
        needed = job.size + promised + reserve
        if needed > free:
            raise DiskFull(
                f"not enough disk space: the file has {job.size} bytes, {promised} are promised to other "
                f"downloads, {reserve} are to stay free, and {free} are free",
                needed=needed,
                free=free,
            )
    return None
