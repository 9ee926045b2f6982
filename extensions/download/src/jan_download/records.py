"""A job as the journal keeps it. What callers see of it is in `shapes`."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from jan_core.types import DownloadFile, PieceList

__all__ = ["ENDED", "LIVE", "PIECE", "Job", "JobState", "Piece", "PieceState"]

PIECE = 8 << 20
"""Bytes of a piece: what is fetched again when a byte of it is wrong."""

JobState = Literal[
    "queued",
    "running",
    "waiting",
    "offline",
    "blocked_disk",
    "paused",
    "verifying",
    "completed",
    "failed",
    "cancelled",
]
"""Closed. `waiting`: the source fails for now, `retry_at` says when it is tried again. `offline`: this machine has no
network, and it goes on by itself when it has. `blocked_disk`: there is no room, and it goes on by itself when there is.
"""

LIVE: tuple[JobState, ...] = ("queued", "running", "waiting", "offline", "blocked_disk", "paused", "verifying")
"""States of a job that will still bring its file."""
ENDED: tuple[JobState, ...] = ("completed", "failed", "cancelled")


class Job(Struct, kw_only=True):
    """One row of the journal. Times are seconds since the epoch, sizes bytes.

    `run` numbers the runs and interventions: whoever changes a job names the run it knows, and changes
    nothing when somebody else was faster. `offset`: how many bytes of the partial file are known to be on the
    disk, whichever pieces they belong to. `high`: the most that `offset` ever was, which is what progress shows.
    `total`: the size as the source says it, where none was asked for. `pieces`: the `PieceList` as JSON, or "".
    `group`, `group_name`, `position`: the group it belongs to, what people call that, and its place in it.
    `completed_at`: when the file could be used; 0 for a completed member of a group that is not complete yet.
    `limit`: bytes a second, 0 without one. `not_before`: when it may begin. `origin`: whose copy on this machine it
    was taken from.
    """

    id: str
    name: str
    url: str
    sha256: str
    size: int
    destination: str
    partial: str
    role: str = "weights"
    pieces: str = ""
    group: str = ""
    group_name: str = ""
    position: int = 0
    priority: int = 0
    limit: int = 0
    not_before: float = 0.0
    state: JobState = "queued"
    run: int = 0
    offset: int = 0
    total: int = 0
    high: int = 0
    discarded: int = 0
    source: str = ""
    validator: str = ""
    actual: str = ""
    verified: bool = False
    origin: str = ""
    error_type: str = ""
    error_code: int = 0
    error: str = ""
    retryable: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    created_at: float = 0.0
    updated_at: float = 0.0
    completed_at: float = 0.0

    @property
    def file(self) -> DownloadFile:
        """What is wanted, as hooks get it."""
        return DownloadFile(
            name=self.name, url=self.url, sha256=self.sha256, size=self.size, role=self.role, pieces=self.piece_list
        )

    @property
    def piece_list(self) -> PieceList | None:
        """Where the hashes of its pieces stand, if somebody knows."""
        return msgspec.json.decode(self.pieces, type=PieceList) if self.pieces else None

    @property
    def piece_length(self) -> int:
        """Bytes of its pieces, as the journal counts them."""
        return self.piece_list.length if self.pieces and self.piece_list else PIECE

    @property
    def expected(self) -> int:
        """The size of the whole file as far as anybody knows; 0 when nobody does."""
        return self.size or self.total


PieceState = Literal["begun", "whole", "verified"]
"""`whole`: all its bytes are there, and no hash of its own is known. `verified`: its own SHA-256 matches."""


class Piece(Struct):
    """One piece of a job's partial file as it is known to be on the disk.

    `index` counts from 0. `length`: bytes from the piece's beginning on that are durable. `source`: the host that
    brought them; `tries`: how often the piece was begun anew because it was wrong. `at`: when this was noted.
    """

    index: int
    length: int
    state: PieceState = "begun"
    source: str = ""
    tries: int = 0
    at: float = 0.0
