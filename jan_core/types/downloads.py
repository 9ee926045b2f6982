"""Files to be had, where from, and whether they may be fetched now."""

from __future__ import annotations

from msgspec import Struct, field

__all__ = ["Admission", "AdoptedFile", "DownloadFile", "DownloadJob", "DownloadSource", "PieceList"]


class PieceList(Struct, omit_defaults=True):
    """Where the SHA-256 of each piece of a file stand: `count` hashes of 32 bytes, of pieces of `length` bytes.

    `sha256` is that of the list itself, which is at `url`.
    """

    length: int
    count: int
    sha256: str
    url: str


class DownloadFile(Struct, omit_defaults=True):
    """One file. `sha256` is lower-case hex, empty when nobody knows it; `size` in bytes, 0 when unknown.

    `role`: what it is for (`weights`, `projector`, `adapter`, `tokenizer`).
    """

    name: str
    url: str = ""
    sha256: str = ""
    size: int = 0
    role: str = "weights"
    pieces: PieceList | None = None


class DownloadSource(Struct, omit_defaults=True):
    """One place to get a file from. `priority`: lower is tried first."""

    url: str
    priority: int = 0
    headers: dict[str, str] = field(default_factory=dict)


class AdoptedFile(Struct):
    """A copy this machine already has, at `path`; whoever adopts it verifies it again."""

    path: str
    origin: str


class DownloadJob(Struct):
    """A download about to start, for those who may veto it. Sizes in bytes."""

    id: str
    file: DownloadFile
    destination: str
    disk_free: int


class Admission(Struct):
    """A vote on a download or a load. The first refusal decides; its reason is shown."""

    allowed: bool
    reason: str = ""
