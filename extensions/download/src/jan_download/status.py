"""How a run stands at one moment, as the engine tells it to whoever shows it. Nothing here is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msgspec import Struct

from .records import Job

__all__ = ["SourceFigures", "SourceState", "Status"]

SourceState = Literal["unused", "active", "idle", "waiting", "quarantined", "gone"]
"""`idle`: it was asked, and others do better. `waiting`: it fails for now. `quarantined`: it sent wrong bytes.
`gone`: it refuses the file or has another one."""


class SourceFigures(Struct, kw_only=True):
    """One source of a job. `id`: its host (and `:port`, and `#2` for a second of the same host), never its address.

    `bytes`: what it brought that counts; `speed`: bytes/s while it was active; `errors`: failures so far; `reason`: why
    it is not used.
    """

    id: str
    state: SourceState = "unused"
    bytes: int = 0
    speed: int = 0
    connections: int = 0
    errors: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    `job`: as it was last journaled. `written`: bytes that are in the partial file, durable or not; `verified`: those of
    them in pieces whose own hash was checked. `pieces`: the piece map, as `shapes.Download` has it.
    """

    job: Job
    written: int = 0
    verified: int = 0
    connections: int = 0
    sources: tuple[SourceFigures, ...] = field(default=())
    pieces: str = ""
