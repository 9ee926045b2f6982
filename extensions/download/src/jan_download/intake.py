"""Whether a new job may be, and what there is already for the same file."""

from __future__ import annotations

from .errors import DownloadConflict
from .journal import Journal
from .names import same_name
from .records import LIVE, Job
from .reservation import check_capacity
from .storage.linking import is_name_of
from .storage.store import Store

__all__ = ["admit_new", "same_file"]


def admit_new(job: Job, journal: Journal, store: Store, reserve: int) -> Job | None:
    """The job that brings or brought the same file already; None when `job` is new and may be added.

    The same content under another name is a job of its own: it waits for the first, and costs no bytes. So is a file
    that belongs to another group. Raises DownloadConflict when the destination belongs to another file, DiskFull when
    the file could never be on this disk.
    """
    named = False
    for other in journal.related(job.destination, job.sha256):
        if same_name(other.destination) != same_name(job.destination):
            continue
        here = other.state == "completed" and store.final(other.destination).is_file()
        if same_file(other, job):
            if other.group == job.group and (here or other.state in (*LIVE, "failed")):
                return other
            named = named or here
        elif other.state in LIVE:
            raise DownloadConflict(
                f"{other.destination} is being fetched from elsewhere", job=other.id, state=other.state
            )
        elif here:
            raise _taken(other.destination)
    final = store.final(job.destination)
    if not named and final.exists() and not (job.sha256 and is_name_of(final, store.blob(job.sha256))):
        raise _taken(job.destination)
    if job.size:
        check_capacity(job.size, store.capacity(), reserve)
    return None


def _taken(destination: str) -> DownloadConflict:
    return DownloadConflict(f"there is another file {destination} already", destination=destination)


def same_file(one: Job, other: Job) -> bool:
    """Whether two jobs are for the same content: by its hash, else by where it comes from."""
    if one.sha256 and other.sha256:
        return one.sha256 == other.sha256
    return bool(one.url) and one.url == other.url
