"""The hashes of a file's pieces, so that a client can tell which eight mebibytes of forty gigabytes are damaged."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from jan_core import StorageError

from ..collections import Pieces, digest
from .files import write
from .reading import plain_file

__all__ = ["PIECE", "Pieced", "referenced_pieces", "split", "store"]

PIECE = 8 * 2**20


class Pieced(msgspec.Struct, frozen=True):
    """A file, read once. `sha256` of the whole; `content`: the pieces' SHA-256, 32 bytes each, one after the other."""

    size: int
    sha256: str
    pieces: Pieces
    content: bytes


class _File(msgspec.Struct):
    pieces: Pieces | None = None


class _Files(msgspec.Struct):
    files: list[_File] = []


def split(path: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> Pieced:
    """Hash a file and its pieces; a piece at a time is in memory. `progress` gets bytes done and bytes in total.

    The last piece is what is left over; an empty file has none. Raises StorageError.
    """
    whole, hashes, done = hashlib.sha256(), [], 0
    try:
        with plain_file(path) as file:
            total = os.fstat(file.fileno()).st_size
            while piece := file.read(PIECE):
                whole.update(piece)
                hashes.append(hashlib.sha256(piece).digest())
                done += len(piece)
                progress(done, max(total, done))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    content = b"".join(hashes)
    name = digest(content)
    pieces = Pieces(len=PIECE, n=len(hashes), sha256=name, target=f"pieces/{name}.bin")
    return Pieced(done, whole.hexdigest(), pieces, content)


def store(pieced: Pieced, folder: Path) -> Path:
    """Keep a piece list for publication, as `SHA.bin`. Raises StorageError."""
    path = folder / Path(pieced.pieces.target).name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(path, pieced.content)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror or error}") from error
    return path


def referenced_pieces(models: Iterable[bytes]) -> Iterator[str]:
    """The piece lists that records of models name, as paths below a tree; each once. What is no such path is left out:
    a record must not reach for other files."""
    seen: set[str] = set()
    for record in models:
        try:
            files = msgspec.json.decode(record, type=_Files).files
        except msgspec.ValidationError:
            continue
        for file in files:
            target = file.pieces.target if file.pieces else ""
            if re.fullmatch(r"pieces/[0-9a-f]{64}\.bin", target) and target not in seen:
                seen.add(target)
                yield f"targets/{target}"
