"""The published SHA-256 of a file's pieces: fetched, checked against what was asked for, and kept.

A list is 32 bytes a piece, one after the other, and nothing else (`registry/publish/pieces.py` writes them). It is
kept as `pieces/<its sha256>.bin`, so that a file can be checked and mended later, with or without a network.

For most files nobody publishes one. What their pieces hash to is noted when such a file is found right (`note`), so
that later damage can be narrowed down just the same: `pieces/of-<sha256 of the file>.bin`, its own SHA-256 at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jan_core import JanError
from jan_core.types import DownloadSource, PieceList

from ..errors import BadSource
from ..records import PIECE, Job

if TYPE_CHECKING:
    from ..network.network import Network
    from ..storage.store import Store

__all__ = ["PieceHashes", "load", "note", "noted", "problem", "stored", "sweep"]

_HASH = 32
_SHORTEST, _LONGEST = 64 << 10, 1 << 30
_LARGEST_LIST = 2 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PieceHashes:
    """`length`: bytes of a piece, the last one has what is left. `hashes`: their SHA-256, 32 bytes each."""

    length: int
    hashes: bytes

    @property
    def count(self) -> int:
        return len(self.hashes) // _HASH

    def of(self, index: int) -> bytes:
        """The SHA-256 of a piece, counted from 0. Raises IndexError."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return self.hashes[index * _HASH : (index + 1) * _HASH]


def load(pieces: PieceList, size: int, network: Network, store: Store) -> PieceHashes:
    """The list as it is kept here, else fetched and then kept; blocks. `size`: that of the file, in bytes.

    Raises BadSource when the list cannot be used or cannot be had, whatever the reason: the file itself can still
    be fetched then, and is checked as a whole.
    """
    from ..network.errors import Unreachable

    known = stored(pieces, size, store)
    if known is not None:
        return known
    try:
        content = network.fetch(DownloadSource(pieces.url), _HASH * pieces.count)
    except Unreachable as error:
        raise BadSource(f"the hashes of the pieces cannot be had: {error}") from error
    except JanError as error:
        raise BadSource(f"the hashes of the pieces cannot be had: {error.message}") from error
    if len(content) != _HASH * pieces.count:
        raise BadSource(f"the list of hashes has {len(content)} bytes, not the {_HASH * pieces.count} of its pieces")
    if hashlib.sha256(content).hexdigest() != pieces.sha256:
        raise BadSource("the list of hashes is not the one that was published: its own SHA-256 differs")
    _keep(_path(store, pieces), content)
    return PieceHashes(pieces.length, content)


def stored(pieces: PieceList, size: int, store: Store) -> PieceHashes | None:
    """The list as it is kept here; None without one, or when it is damaged. Raises BadSource when the list cannot be
    that of a file of `size` bytes."""
    found = problem(pieces, size)
    if found:
        raise BadSource(f"the hashes of the pieces cannot be used: {found}")
    try:
        with _path(store, pieces).open("rb") as file:
            content = file.read(_HASH * pieces.count + 1)
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != pieces.sha256:
        return None
    return PieceHashes(pieces.length, content)


def note(sha256: str, hashes: PieceHashes, store: Store) -> None:
    """Keep what the pieces of a file hash to that is right as a whole."""
    _keep(_own(store, sha256), hashes.hashes + hashlib.sha256(hashes.hashes).digest())


def noted(sha256: str, size: int, store: Store) -> PieceHashes | None:
    """What the pieces of a file of `size` bytes hashed to when it was found right; None when that was never noted."""
    try:
        content = _own(store, sha256).read_bytes()
    except OSError:
        return None
    hashes, digest = content[:-_HASH], content[-_HASH:]
    right = len(hashes) == _HASH * -(-size // PIECE) and hashlib.sha256(hashes).digest() == digest
    return PieceHashes(PIECE, hashes) if right else None


def sweep(jobs: Collection[Job], store: Store) -> None:
    """Remove what is kept for none of these jobs."""
    keep = {f"{job.piece_list.sha256}.bin" for job in jobs if job.piece_list is not None}
    keep |= {_own(store, job.actual or job.sha256).name for job in jobs}
    for path in (store.root / "pieces").glob("*"):
        if path.name not in keep:
            path.unlink(missing_ok=True)


def problem(pieces: PieceList, size: int) -> str:
    """Why a list cannot be that of a file of `size` bytes; "" when it can."""
    if not _SHA256.fullmatch(pieces.sha256):
        return "the SHA-256 of the list is none"
    if not _SHORTEST <= pieces.length <= _LONGEST:
        return f"pieces have {_SHORTEST} to {_LONGEST} bytes, these have {pieces.length}"
    if size <= 0:
        return "the size of the file is not known"
    if pieces.count != -(-size // pieces.length):
        return f"there are {pieces.count}, and a file of {size} bytes has {-(-size // pieces.length)} of that length"
    if _HASH * pieces.count > _LARGEST_LIST:
        return f"there are more than {_LARGEST_LIST // _HASH}"
    return ""


def _path(store: Store, pieces: PieceList) -> Path:
    return store.root / "pieces" / f"{pieces.sha256}.bin"


def _own(store: Store, sha256: str) -> Path:
    return store.root / "pieces" / f"of-{sha256}.bin"


def _keep(path: Path, content: bytes) -> None:
    """Whoever reads it checks it, so nothing is synced; a disk that does not take it costs another fetch, no more."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{secrets.token_hex(4)}.new")
        try:
            fresh.write_bytes(content)
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
