"""Forgetting a download, and freeing what only it had."""

from __future__ import annotations

from ..journal import Journal
from ..names import same_name
from ..records import LIVE
from .inheriting import inherit
from .store import Store

__all__ = ["remove"]


def remove(job_id: str, journal: Journal, store: Store, *, keep_file: bool = False) -> int:
    """Forget a job that has no run; its file, its name and its partial file go unless another job needs them. Returns
    the bytes of the disk that are free because of it.

    `keep_file`: a complete file stays under its name, as a file that nobody looks after. Raises StorageError, OSError.
    """
    with journal.transaction():  # nobody takes an interest in the file between the look and the deed
        job = journal.get(job_id)
        if job is None:
            return 0
        sha256 = job.actual or job.sha256
        others = [other for other in journal.holders(sha256, job.partial) if other.id != job_id]
        complete = [other for other in others if other.state == "completed"]
        freed = 0
        heirs = [other for other in others if other.partial == job.partial and other.state in (*LIVE, "failed")]
        if not heirs:
            freed += store.discard(job.partial)
        elif job.offset > heirs[-1].offset and job.state != "completed":
            inherit(job, heirs[-1], journal)
        if job.state == "completed" and keep_file:
            if not complete:
                store.let_go(sha256, job.destination)
        elif job.state == "completed":
            here = same_name(job.destination)
            named = any(same_name(other.destination) == here for other in complete)
            freed += store.release(sha256, [] if named else [job.destination], keep_blob=bool(complete))
        journal.remove(job_id)
        return freed
