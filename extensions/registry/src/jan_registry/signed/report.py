"""What one sync with a hub did, for people and for the roll-out's gates."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

__all__ = ["CollectionReport", "SyncReport"]


class CollectionReport(Struct, kw_only=True):
    """One collection. `delta`: only the changes came, to what was stored or was shipped with the program; `removed`:
    the hub has withdrawn it; `failed`: it is as it was, and `error` says why."""

    name: str
    how: Literal["unchanged", "delta", "full", "removed", "failed"]
    seq: int = 0
    created: int = 0
    updated: int = 0
    deleted: int = 0
    error: str = ""


class SyncReport(Struct, kw_only=True):
    """`bytes` of bodies as they came over the wire, in `requests` requests. `fallbacks`: why which delta did not do.

    `backoff`: seconds for which the hub asked to be left alone; `note`: what had to be repaired.
    """

    outcome: Literal["unchanged", "updated"] = "unchanged"
    collections: list[CollectionReport] = field(default_factory=list)
    bytes: int = 0
    requests: int = 0
    seconds: float = 0.0
    fallbacks: list[str] = field(default_factory=list)
    backoff: float = 0.0
    note: str = ""

    @property
    def notes(self) -> list[str]:
        """What people should know of it, beside the figures."""
        failed = [f"{one.name}: {one.error}" for one in self.collections if one.how == "failed"]
        return [*([self.note] if self.note else []), *self.fallbacks, *failed]
