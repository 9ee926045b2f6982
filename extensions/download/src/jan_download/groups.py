"""Groups: what follows from the states of their members, and the one moment in which they become usable.

A group is nothing but its jobs; nothing of it is kept elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from jan_core.types import DownloadFile

from .journal import Journal
from .names import same_name
from .records import Job
from .shapes import Download, DownloadGroup, GroupState
from .storage.store import Store

__all__ = [
    "group_of",
    "in_order",
    "key_of",
    "let_go",
    "make_unusable",
    "make_usable",
    "matching",
    "state_of",
    "unnamed",
]

_LIVE: tuple[GroupState, ...] = (
    "running", "verifying", "waiting", "offline", "blocked_disk", "queued", "paused",
)  # fmt: skip
_SMALL = 64 << 20
"""Bytes up to which a file comes first, whatever its role: a model without its tokenizer is of no use."""


def state_of(states: Sequence[str]) -> GroupState:
    """What one word says about all: complete when every one is; failed as soon as one has; otherwise what moves."""
    present = set(states)
    if present == {"completed"}:
        return "completed"
    if "failed" in present:
        return "failed"
    return next((state for state in _LIVE if state in present), "cancelled")


def group_of(name: str, downloads: Sequence[Download]) -> DownloadGroup:
    """Members, in their order, as one. A total that is not known of one is not known."""
    speed = sum(each.speed for each in downloads)
    known = all(each.bytes_total or each.state == "completed" for each in downloads)
    done, total = sum(each.bytes_done for each in downloads), sum(each.bytes_total for each in downloads)
    state = state_of([each.state for each in downloads])
    moving = [each for each in downloads if each.state == "running"]
    told = bool(moving) and known and all(each.eta is not None for each in moving) and speed > 0
    return DownloadGroup(
        id=downloads[0].group,
        name=name,
        state=state,
        bytes_done=done,
        bytes_total=total if known else 0,
        speed=speed,
        eta=round((total - done) / speed) if told else 0 if state == "completed" else None,
        downloads=list(downloads),
    )


def in_order(files: Sequence[DownloadFile]) -> list[int]:
    """The places of files in the order in which they are fetched: small ones first, each kind as it was asked for."""
    return sorted(range(len(files)), key=lambda n: (not _comes_first(files[n]), n))


def _comes_first(file: DownloadFile) -> bool:
    return file.role != "weights" or 0 < file.size <= _SMALL


def matching(wanted: Sequence[Job], journal: Journal, store: Store) -> list[Job]:
    """The members of the group that has just these files already; [] without one, and when it was given up or somebody
    removed its files."""
    keys = sorted(map(key_of, wanted))
    tried: set[str] = set()
    for other in journal.related(wanted[0].destination, wanted[0].sha256):
        if other.group and other.group not in tried:
            tried.add(other.group)
            members = journal.group(other.group)
            if sorted(map(key_of, members)) == keys and all(_stands(each, store) for each in members):
                return members
    return []


def _stands(job: Job, store: Store) -> bool:
    if job.completed_at:
        return store.final(job.destination).is_file()
    return job.state != "cancelled"


def key_of(job: Job) -> tuple[str, str]:
    """What tells the files of a group apart: the name, and the content or where it comes from."""
    return same_name(job.destination), job.sha256 or job.url


def unnamed(journal: Journal) -> list[str]:
    """Groups that are complete and whose files have no names: it was interrupted between the two."""
    waiting = {job.group for job in journal.jobs(("completed",)) if job.group and not job.completed_at}
    return sorted(group for group in waiting if all(job.state == "completed" for job in journal.group(group)))


def make_usable(group_id: str, journal: Journal, store: Store) -> list[Job]:
    """When every member is complete: give all files their names, and then say so of all at once; blocks.

    Returns the changed members; [] while one is missing. Doing it again does nothing. Raises DownloadConflict when
    another file has taken a name meanwhile; OSError, StorageError.
    """
    members = journal.group(group_id)
    if any(job.state != "completed" for job in members) or all(job.completed_at for job in members):
        return []
    for job in members:
        store.name(job.actual, job.destination)
    now = time.time()
    with journal.transaction():
        changed = [journal.update(job.id, completed_at=now) for job in members]
    return [job for job in changed if job is not None]


def make_unusable(group_id: str, journal: Journal) -> list[Job]:
    """A member is not complete any more: none may be used until it is. Returns the changed members. Raises
    StorageError."""
    with journal.transaction():
        usable = [job for job in journal.group(group_id) if job.state == "completed" and job.completed_at]
        changed = [journal.update(job.id, completed_at=0.0) for job in usable]
    return [job for job in changed if job is not None]


def let_go(journal: Journal, store: Store, older_than: float) -> list[Job]:
    """Remove what is complete of groups that were given up more than `older_than` seconds ago; returns those members.

    Raises StorageError, OSError.
    """
    until, gone = time.time() - older_than, []
    unusable = {job.group for job in journal.jobs(("completed",)) if job.group and not job.completed_at}
    for members in map(journal.group, unusable):
        if state_of([job.state for job in members]) == "cancelled" and max(job.updated_at for job in members) <= until:
            for job in members:
                if job.state == "completed":
                    others = [other for other in journal.holders(job.actual) if other.id != job.id]
                    if not any(other.state == "completed" for other in others):
                        store.remove(job.actual, [])
                    after = journal.update(job.id, job.run, run=job.run + 1, state="cancelled", offset=0)
                    gone += [after] if after is not None else []
    return gone
