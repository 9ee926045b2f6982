"""Checks a complete file against its SHA-256 again, and takes a damaged one out of use."""

from __future__ import annotations

from collections.abc import Callable

from .errors import DownloadConflict, DownloadNotFound, HashMismatch
from .journal import Journal
from .shapes import Verification
from .store import Store, digest_of

__all__ = ["verify"]

_STEP = 64 << 20


def verify(
    job_id: str,
    journal: Journal,
    store: Store,
    stopped: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Verification:
    """Hash the file of a completed job; blocks. `progress` gets (bytes done, bytes in all), every 64 MiB.

    Raises DownloadNotFound; DownloadConflict when there is no complete file or `stopped` answered true;
    OSError.
    """
    job = journal.get(job_id) if journal.exists else None
    if job is None:
        raise DownloadNotFound(f"there is no download {job_id!r}", id=job_id)
    path = store.final(job.destination)
    if job.state != "completed" or not path.is_file():
        reason = f"the download is {job.state}" if job.state != "completed" else f"its file {job.destination} is gone"
        raise DownloadConflict(f"there is nothing to verify: {reason}", state=job.state)
    size, shown = path.stat().st_size, 0

    def note(done: int) -> None:
        nonlocal shown
        if done - shown >= _STEP:
            shown = done
            progress(done, size)

    digest, _ = digest_of(path, stopped=stopped, progress=note)
    if stopped():
        raise DownloadConflict("the verification was stopped", state=job.state)
    actual, expected = digest.hexdigest(), job.sha256 or job.actual
    ok = actual == expected
    if (
        not ok
        and journal.update(
            job_id,
            job.run,
            state="failed",
            run=job.run + 1,
            offset=0,
            total=job.size,
            validator="",
            source="",
            actual="",
            discarded=job.discarded + size,
            verified=False,
            completed_at=0.0,
            error_type=HashMismatch.type,
            error_code=HashMismatch.code,
            error="the file on the disk has changed since it was fetched; it was set aside",
        )
        is not None
    ):
        store.set_aside(job.destination)
    return Verification(id=job_id, ok=ok, actual=actual, expected=expected, known_before=bool(job.sha256), size=size)
