"""What is made good before the first byte moves: what a crash, an exit, or an older version of this left.

Called once by the holder of the folder's lock, before any run. Each step can be cut off and done again. What it costs
is a look at each job, and the hash of a file only where a crash came between the file and its row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..integrity import piece_lists
from ..journal import Journal
from ..outcome import NO_ERROR
from ..records import LIVE, Job, JobState
from .durable import make_folder, sync_folder
from .hashing import sha256_of
from .store import Store

__all__ = ["Recovered", "recover"]

_DAY = 86_400.0
_INTERRUPTED: tuple[JobState, ...] = ("running", "verifying")
_BY_THEMSELVES: tuple[JobState, ...] = ("queued", "waiting", "offline", "blocked_disk")


@dataclass
class Recovered:
    """`jobs`: those that were changed, as they are now. `warnings`: what a person should know."""

    jobs: list[Job] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def recover(
    journal: Journal,
    store: Store,
    *,
    resume: bool,
    keep_partial_days: float,
    stopped: Callable[[], bool] = lambda: False,
) -> Recovered:
    """Bring journal and folders together again, and queue what was interrupted; without `resume` it is paused, as is
    what would begin by itself.

    Raises StorageError when the journal cannot be read or written. Trouble with one file is a warning.
    """
    outcome = Recovered()
    _rename_old_partials(store)
    for job in journal.jobs():
        if stopped():
            return outcome
        try:
            if job.state == "completed":
                after = _completed(job, journal, store)
            elif job.state in LIVE:
                after = _finished_before(job, journal, store, stopped) or _unbacked(job, journal, store)
            else:
                after = _unbacked(job, journal, store)
        except Exception as error:  # whatever is wrong with one is no reason to leave the others as they are
            outcome.warnings.append(f"download {job.id} of {job.destination}: {error}")
        else:
            outcome.jobs += [after] if after is not None else []
    for job in journal.jobs((*_INTERRUPTED, *(() if resume else _BY_THEMSELVES))):
        after = journal.update(job.id, job.run, state="queued" if resume else "paused", run=job.run + 1)
        outcome.jobs += [after] if after is not None else []
    store.clear_unfinished()
    sweep(journal, store, keep_partial_days)
    piece_lists.sweep(journal.jobs(), store)
    if journal.recovered:
        outcome.warnings.append(journal.recovered)
    return outcome


def _completed(job: Job, journal: Journal, store: Store) -> Job | None:
    """Its blob and its name are there; the first version kept the file under its name alone."""
    sha256 = job.actual or job.sha256
    blob, final = store.blob(sha256), store.final(job.destination)
    if not blob.is_file():
        if final.is_file() and final.stat().st_size == job.offset:
            _take_in(final, blob, store, job.destination)
        elif store.partial(job.partial).is_file() and job.sha256:
            # It was taken out of use to be repaired, and nothing was noted of what is right in it.
            journal.forget_pieces(job.id)
            return journal.update(
                job.id, job.run, state="queued", run=job.run + 1, offset=0, actual="", verified=False, completed_at=0.0
            )
        else:
            return None
    if job.completed_at:  # else the group it belongs to is not complete, and none of its files has a name
        store.name(sha256, job.destination)
    return None


def _take_in(final: Path, blob: Path, store: Store, destination: str) -> None:
    """Make a file under its final name a blob with that name. It was hashed when it came there."""
    make_folder(blob.parent)
    try:
        os.link(final, blob)
    except OSError:  # no links on this disk: the file becomes the blob, and is named in the next best way
        final.replace(blob)
        try:
            store.name(blob.name, destination)
        except OSError:
            blob.replace(final)
            raise
    sync_folder(blob.parent)


def _finished_before(job: Job, journal: Journal, store: Store, stopped: Callable[[], bool]) -> Job | None:
    """The job as completed, if a crash came between its file and its row; None if not.

    A blob that is not what its name says becomes the partial file again. A strange file under the name is left alone.
    """
    sha256 = job.sha256 or job.actual
    if not sha256 or any(other.state == "completed" for other in journal.holders(sha256)):
        return None  # with a completed job for the same content its run has nothing to do but say so
    blob, final = store.blob(sha256), store.final(job.destination)
    found = blob if blob.is_file() else final
    if not found.is_file() or (job.expected and found.stat().st_size != job.expected and found is final):
        return None
    actual = sha256_of(found, stopped)
    if actual != sha256:
        if actual and found is blob and job.origin:
            store.remove(sha256, [])  # it may be another program's file: nothing may be written to it
        elif actual and found is blob:
            store.withdraw(sha256, job.partial)
        return None
    if found is final:
        _take_in(final, blob, store, job.destination)
    store.discard(job.partial)
    size = blob.stat().st_size
    changes: dict[str, Any] = {"offset": size, "total": size, "high": max(size, job.high), "actual": sha256}
    changes |= {"verified": bool(job.sha256), "attempts": 0, "retry_at": 0.0, **NO_ERROR}
    if not job.group:
        store.name(sha256, job.destination)
        changes["completed_at"] = time.time()
    with journal.transaction():
        journal.forget_pieces(job.id)
        return journal.update(job.id, job.run, state="completed", run=job.run + 1, **changes)


def _unbacked(job: Job, journal: Journal, store: Store) -> Job | None:
    """The job without what it remembers of a partial file that is gone; None when it is there."""
    if not job.offset or store.partial(job.partial).is_file():
        return None
    with journal.transaction():
        journal.forget_pieces(job.id)
        return journal.update(
            job.id, job.run, run=job.run + 1, offset=0, actual="", discarded=job.discarded + job.offset
        )


def _rename_old_partials(store: Store) -> None:
    """The first version called them `<key>.partial`."""
    for old in store.partials.glob("*.partial"):
        new = store.partial(old.stem)
        if not new.exists():
            old.rename(new)
        else:
            old.unlink()


def sweep(journal: Journal, store: Store, keep_partial_days: float) -> None:
    """Remove partial files that nobody will ask for: those of a cancelled job stay for so many days."""
    age = keep_partial_days * _DAY
    young = time.time() - age
    keep = {job.partial for job in journal.jobs((*LIVE, "failed"))}
    keep |= {job.partial for job in journal.jobs(("cancelled",)) if job.updated_at > young}
    store.sweep(keep, age)
