"""Takes a damaged file out of use and makes it a partial one again, of which what is right is known to be right.

The bytes that are missing then are fetched by the engine, as those of any other job.
"""

from __future__ import annotations

import secrets
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import HashMismatch
from ..records import Job, Piece
from ..storage.durable import make_folder, sync_file, sync_folder
from ..storage.linking import clone
from .check import Checked
from .piece_lists import PieceHashes

if TYPE_CHECKING:
    from ..journal import Journal
    from ..storage.store import Store

__all__ = ["damaged_bytes", "take_back"]


def damaged_bytes(checked: Checked, size: int, hashes: PieceHashes | None) -> int:
    """How much of a file of `size` bytes is wrong: the bad pieces and what is too much, or all of it when nobody can
    tell. Bytes that are missing count too."""
    pieces = _good(checked, size, hashes)
    return max(0, checked.size - size) + size - sum(piece.length for piece in pieces)


def take_back(
    job: Job, checked: Checked, hashes: PieceHashes | None, journal: Journal, store: Store, *, again: bool
) -> bool:
    """Withdraw the damaged file of a completed job; False, and nothing done, when somebody changed the job meanwhile.

    `again`: the job is queued to fetch what is wrong, else it has failed and may be resumed. So is every other complete
    job of the same content. The file stays the same one, so that whatever else is a hard link to it heals with it; but
    one that was adopted is copied first, since it may be another program's. Raises OSError, StorageError.
    """
    sha256, size = job.sha256 or job.actual, job.expected or checked.size
    sharers = [other for other in journal.holders(sha256) if other.state == "completed"]
    good, copy = _good(checked, size, hashes), None
    if any(sharer.origin for sharer in sharers):
        copy = store.partials / f"{secrets.token_hex(8)}.copy"  # what is left of it is swept at the next start
        if not _copied(store.blob(sha256) if good else None, copy):
            good = []
    try:
        with journal.transaction():
            known = _note(job, checked, good, size, journal, again)
            if known is None:
                return False
            for sharer in sharers:
                if sharer.id != job.id:
                    journal.update(sharer.id, sharer.run, offset=0, **_changes(sharer, size, again))
                    journal.forget_pieces(sharer.id)
            destinations = [sharer.destination for sharer in sharers]
            if copy is None:
                store.withdraw(sha256, job.partial, destinations)
            else:  # in this order a crash in between shows at the next start
                copy.replace(store.partial(job.partial))
                sync_folder(store.partials)
                store.remove(sha256, destinations)
    finally:
        if copy is not None:
            copy.unlink(missing_ok=True)
    return True


def _note(job: Job, checked: Checked, good: list[Piece], size: int, journal: Journal, again: bool) -> Job | None:
    """Say in the journal what is right of the file; None when somebody else was faster."""
    kept = sum(piece.length for piece in good)
    lost = job.discarded + checked.size - kept
    known = journal.update(job.id, job.run, offset=kept, discarded=lost, **_changes(job, size, again))
    if known is None:
        return None
    sources = {piece.index: piece.source for piece in journal.pieces(job.id)}
    journal.forget_pieces(job.id)
    right = [msgspec.structs.replace(piece, source=sources.get(piece.index, "")) for piece in good]
    wrong = [Piece(index, 0, tries=1, at=time.time()) for index in checked.bad] if good else []
    return journal.checkpoint(job.id, known.run, [*right, *wrong])


def _good(checked: Checked, size: int, hashes: PieceHashes | None) -> list[Piece]:
    """The pieces that are right. None when only the whole is known to be wrong, or when all pieces are right and the
    whole is not: then their hashes are those of another file."""
    if hashes is None or (not checked.bad and checked.size <= size):
        return []
    bad, now = set(checked.bad), time.time()
    spans = ((index, min(hashes.length, size - index * hashes.length)) for index in range(hashes.count))
    return [Piece(index, length, "verified", at=now) for index, length in spans if index not in bad]


def _changes(job: Job, size: int, again: bool) -> dict[str, Any]:
    error = "the file on the disk has changed since it was fetched, and was taken out of use; resume fetches it again"
    return {
        "state": "queued" if again else "failed",
        "run": job.run + 1,
        "total": size,
        "validator": "",
        "source": "",
        "actual": "",
        "origin": "",
        "verified": False,
        "completed_at": 0.0,
        "error_type": "" if again else HashMismatch.type,
        "error_code": 0 if again else HashMismatch.code,
        "error": "" if again else error,
        "retryable": False,
    }


def _copied(blob: Path | None, copy: Path) -> bool:
    """Make a file that is ours alone: a copy of `blob`, or an empty one when there is none or it cannot be copied (no
    room, or not readable as a whole), and then False."""
    make_folder(copy.parent)
    try:
        if blob is not None and not clone(blob, copy):
            shutil.copyfile(blob, copy)
        whole = blob is not None
    except OSError:
        copy.unlink(missing_ok=True)
        whole = False
    copy.touch()
    sync_file(copy)
    return whole
