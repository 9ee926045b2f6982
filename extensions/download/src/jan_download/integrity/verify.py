"""Checks a complete file again: its SHA-256, its pieces, and that its name is a name of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jan_core.types import AdoptedFile

from ..adopt.taking import take
from ..errors import DownloadConflict, DownloadNotFound
from ..records import PIECE, Job
from ..shapes import Verification
from .check import Checked, check
from .piece_lists import PieceHashes, note, noted
from .repair import damaged_bytes, take_back

if TYPE_CHECKING:
    from ..journal import Journal
    from ..storage.store import Store

__all__ = ["verify"]


def verify(
    job_id: str,
    journal: Journal,
    store: Store,
    hashes: PieceHashes | None,
    repair: bool,
    stopped: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Verification:
    """Read the file of a completed job; blocks. `hashes`: of its pieces, where they are known.

    A file that is wrong, cut off or gone is taken out of use: nobody gets it by its name any more. Then the job has
    failed and may be resumed; with `repair` it is queued at once. Either way only the pieces that are wrong are fetched
    again where `hashes` are known, or were noted when the file was verified before, and all of it where not. A name
    that is no name of the file is made again.

    `progress` gets (bytes done, bytes in all), every 64 MiB. Raises DownloadNotFound; DownloadConflict when the job is
    not complete, changed meanwhile, or `stopped` answered true; OSError; StorageError.
    """
    job = journal.get(job_id) if journal.exists else None
    if job is None:
        raise DownloadNotFound(f"there is no download {job_id!r}", id=job_id)
    if job.state != "completed":
        raise DownloadConflict(f"there is nothing to verify: the download is {job.state}", state=job.state)
    expected, size = job.sha256 or job.actual, job.expected
    published, hashes = hashes, hashes or noted(expected, size, store)
    checked = _check(job, store, hashes, stopped, progress)
    if checked is None:
        raise DownloadConflict("the verification was stopped", state=job.state)
    ok = checked.actual == expected
    if ok and published is None:
        note(expected, checked.pieces, store)
    if not ok and not take_back(job, checked, hashes, journal, store, again=repair):
        raise DownloadConflict("the download was changed while it was verified", state=job.state)
    return Verification(
        id=job_id,
        ok=ok,
        actual=checked.actual,
        expected=expected,
        known_before=bool(job.sha256),
        size=checked.size,
        damaged=0 if ok else damaged_bytes(checked, size, hashes),
        repairing=repair and not ok,
        warning=_renamed(job, journal, store) if ok else "" if hashes else _WHOLE,
    )


_WHOLE = "the hashes of its pieces are not known: all of it has to be fetched again"


def _check(
    job: Job,
    store: Store,
    hashes: PieceHashes | None,
    stopped: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> Checked | None:
    """Read what is there; when the blob is gone, what its name still stands for."""
    sha256 = job.sha256 or job.actual
    blob, name = store.blob(sha256), store.final(job.destination)
    if not blob.is_file() and take(AdoptedFile(str(name), ""), store, job.partial, sha256, job.expected, stopped):
        store.adopt(job.partial, sha256)
    if stopped():
        return None
    try:
        return check(blob, job.expected, hashes, stopped, progress)
    except FileNotFoundError:
        return Checked("", 0, tuple(range(hashes.count if hashes else 0)), PieceHashes(PIECE, b""))


def _renamed(job: Job, journal: Journal, store: Store) -> str:
    """Make sure that the file's name is one of it; says what had to be done."""
    if any(member.state != "completed" for member in journal.group(job.group)):
        return ""  # it gets its name together with the others
    sha256, name = job.sha256 or job.actual, store.final(job.destination)
    there = name.exists() or name.is_symlink()
    try:
        store.name(sha256, job.destination)
    except DownloadConflict:
        name.unlink()
        store.name(sha256, job.destination)
        return f"its name {job.destination} had become that of another file, and was made again"
    return "" if there else f"its name {job.destination} was gone, and was made again"
