"""The files that are downloaded, with their hashes: random bytes, or a huge one that takes no room."""

from __future__ import annotations

import hashlib
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["PIECE", "Content", "digest", "holes", "noise"]

PIECE = 8 << 20
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Content:
    """A file to be served, the list of its pieces' hashes beside it."""

    path: Path
    size: int
    sha256: str
    hashes: bytes

    @property
    def list_path(self) -> Path:
        return self.path.with_name(self.path.name + ".pieces")

    @property
    def small_path(self) -> Path:
        """A small file beside it, for those who warm up."""
        return self.path.with_name("small.bin")

    def file(self, url: str, *, pieces: str = "") -> dict[str, Any]:
        """What `downloads.start` is asked for; `pieces`: where the list is."""
        file: dict[str, Any] = {"name": self.path.name, "url": url, "sha256": self.sha256, "size": self.size}
        if pieces:
            sha256 = hashlib.sha256(self.hashes).hexdigest()
            file["pieces"] = {"length": PIECE, "count": len(self.hashes) // 32, "sha256": sha256, "url": pieces}
        return file

    def small(self, endpoint: str) -> dict[str, Any]:
        """The same for the small file."""
        path = self.small_path
        url, size = f"{endpoint}/{path.name}", path.stat().st_size
        return {"name": path.name, "url": url, "sha256": digest(path), "size": size}


def noise(path: Path, size: int) -> Content:
    """Bytes that are the same in every run, and like nothing else."""
    source = random.Random(size)
    with path.open("wb") as file:
        for at in range(0, size, _BLOCK):
            file.write(source.randbytes(min(_BLOCK, size - at)))
    return _described(path, size)


def holes(path: Path, size: int) -> Content:
    """A sparse file: all zeros but for a few bytes in each piece, so that no piece is like another."""
    with path.open("wb") as file:
        file.truncate(size)
        for at in range(0, size - 8, PIECE):
            file.seek(at)
            file.write((at + 1).to_bytes(8, "big"))
    return _described(path, size)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(path: Path, size: int) -> Content:
    whole, hashes = hashlib.sha256(), []
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())
        while piece := file.read(PIECE):
            whole.update(piece)
            hashes.append(hashlib.sha256(piece).digest())
    content = Content(path, size, whole.hexdigest(), b"".join(hashes))
    content.list_path.write_bytes(content.hashes)
    content.small_path.write_bytes(random.Random(0).randbytes(_BLOCK))
    return content
