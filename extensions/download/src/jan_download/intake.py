"""Whether a new job may be, and what there is already for the same file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import DownloadConflict
from .groups import key_of, matching
from .journal import Journal
from .names import same_name
from .records import LIVE, Job
from .reservation import check_capacity
from .storage.store import Store

__all__ = ["find_same", "insert", "news", "paired", "taken"]


def find_same(jobs: Sequence[Job], journal: Journal, store: Store, reserve: int) -> list[Job]:
    """What there is already for a new job, or for the jobs of a new group; [] when all of them may be added.

    Raises DownloadConflict, DiskFull.
    """
    if jobs[0].group and (members := matching(jobs, journal, store)):
        return members
    found = [_same(job, journal, store, reserve) for job in jobs]
    return [job for job in found if job is not None]


def insert(jobs: Sequence[Job], journal: Journal, store: Store, reserve: int) -> list[Job]:
    """Add jobs to the journal, unless there is something for them already: then that is returned. Raises as
    `find_same` does."""
    with journal.transaction():
        found = find_same(jobs, journal, store, reserve)
        for job in jobs if not found else ():
            if not job.sha256:
                job.partial = _kept_partial(job, journal) or job.partial
            journal.add(job)
        return found


def paired(found: Sequence[Job], asked: Sequence[Job]) -> list[tuple[Job, Job]]:
    """Each job that was found, with the one that was asked for."""
    if not asked[0].group:
        return [(found[0], asked[0])]
    by_key = {key_of(job): job for job in asked}
    return [(job, by_key[key_of(job)]) for job in found]


def news(job: Job, asked: Job) -> dict[str, Any]:
    """What a request says that the job which is there for it does not know, such as a better address."""
    if job.state == "completed":
        return {}
    changes: dict[str, Any] = {}
    for name in ("url", "priority", "limit", "not_before"):
        if getattr(asked, name) not in ("", 0, getattr(job, name)):
            changes[name] = getattr(asked, name)
    if asked.size and not job.size:
        changes["size"] = asked.size
    if asked.pieces and not job.pieces and not job.offset:  # else what is there is counted in other pieces
        changes["pieces"] = asked.pieces
    return changes


def _kept_partial(job: Job, journal: Journal) -> str:
    """The key of what a cancelled download from the same place left; "" without one."""
    related = journal.related(job.destination, "")
    return next((old.partial for old in related if old.state == "cancelled" and old.url == job.url), "")


def _same(job: Job, journal: Journal, store: Store, reserve: int) -> Job | None:
    """The job that brings or brought the same file already; None when `job` is new and may be added.

    The same content under another name is a job of its own: it waits for the first, and costs no bytes. So is a file
    that belongs to another group. A file of the right size that stands under the name already, and that nobody looks
    after, is hashed by the run. Raises DownloadConflict when the destination belongs to another file, also when it was
    fetched from the same place and its SHA-256 is another one; DiskFull when the file could never be on this disk.
    """
    named = False
    for other in journal.related(job.destination, job.sha256):
        if same_name(other.destination) != same_name(job.destination):
            continue
        here = other.state == "completed" and store.final(other.destination).is_file()
        if _same_file(other, job) and not (here and job.sha256 not in ("", other.sha256, other.actual)):
            if other.group == job.group and (here or other.state in (*LIVE, "failed")):
                return other
            named = named or here
        elif other.state in LIVE:
            raise DownloadConflict(
                f"{other.destination} is being fetched from elsewhere", job=other.id, state=other.state
            )
        elif here:
            raise taken(other.destination)
    if not named and store.final(job.destination).exists() and not _may_be(job, store):
        raise taken(job.destination)
    if job.size:
        check_capacity(job.size, store.capacity(), reserve)
    return None


def _may_be(job: Job, store: Store) -> bool:
    """Whether what stands under a job's name may be its file."""
    final = store.final(job.destination)
    return bool(job.sha256) and final.is_file() and job.size in (0, final.stat().st_size)


def taken(destination: str) -> DownloadConflict:
    """What is said when a name belongs to another file."""
    return DownloadConflict(f"there is another file {destination} already", destination=destination)


def _same_file(one: Job, other: Job) -> bool:
    """Whether two jobs are for the same content: by its hash, else by where it comes from."""
    if one.sha256 and other.sha256:
        return one.sha256 == other.sha256
    return bool(one.url) and one.url == other.url
