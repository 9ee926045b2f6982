"""Params and results of the methods. All lists say where they come from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from jan_core.types import DownloadFile, ModelContext, ModelRecord, Phase

__all__ = [
    "FeaturedQuery",
    "ModelAnswer",
    "ModelId",
    "ModelList",
    "Origin",
    "PhaseAnswer",
    "Provenance",
    "RefreshReport",
    "RegistryChanged",
    "RegistryStatus",
    "Resolution",
    "SearchQuery",
    "Skipped",
    "rfc3339",
]

Origin = Literal["builtin", "cache", "network"]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Offset = Annotated[int, Meta(ge=0)]

UNVERIFIED = "the list came over the network and is not signed: nobody vouches for it but the server it came from"


class Provenance(Struct):
    """Where an answer comes from.

    `network`: fetched by this process; `cache`: fetched by an earlier one; `builtin`: part of the program.
    `fetched_at` is RFC 3339 in UTC and `age` in seconds since the source last confirmed the list; both are empty for
    the built-in list. `digest` is the SHA-256 of the document. `verification` is never `verified`: lists are not
    signed yet.
    """

    origin: Origin
    source: str = ""
    fetched_at: str = ""
    age: float | None = None
    digest: str = ""
    verification: Literal["unverified", "builtin"] = "builtin"
    note: str = ""


class FeaturedQuery(Struct, forbid_unknown_fields=True):
    """`context`: for whom; it is seen by extensions that filter and rank, and never leaves this machine."""

    context: ModelContext = field(default_factory=ModelContext)
    limit: Limit = 100


class SearchQuery(Struct, forbid_unknown_fields=True):
    """`text`: words that all occur in a model's id, name, publisher or tags, in any case; empty: every model."""

    text: Annotated[str, Meta(max_length=1000)] = ""
    limit: Limit = 100
    offset: Offset = 0


class ModelId(Struct, forbid_unknown_fields=True):
    id: Annotated[str, Meta(max_length=256)]


class ModelList(Struct):
    """`total`: how many there are beside the limit."""

    models: list[ModelRecord]
    total: int
    provenance: Provenance


class ModelAnswer(Struct):
    model: ModelRecord
    provenance: Provenance


class Resolution(Struct):
    """What to download to have a model. `checkable`: the SHA-256 of every file is known."""

    id: str
    files: list[DownloadFile]
    checkable: bool
    provenance: Provenance


class Skipped(Struct):
    """A record of a list that is not used: its place from 0, its id if it has one, and what is wrong with it."""

    index: int
    id: str
    reason: str


class RefreshReport(Struct):
    """What a refresh found. `added`, `removed` and `changed` count models against the list before."""

    outcome: Literal["updated", "unchanged"]
    models: int
    added: int
    removed: int
    changed: int
    skipped: list[Skipped]
    duration: float
    provenance: Provenance


class RegistryChanged(Struct):
    """Data of the event `registry.changed`: another list is served. The counts are those of `RefreshReport`."""

    added: int
    removed: int
    changed: int
    models: int
    digest: str


class PhaseAnswer(Struct):
    """The phase of the roll-out that is served. `asked` is what an extension chose, if that is not served yet."""

    phase: Phase
    reason: str
    asked: Phase | None = None
    served: list[Phase] = field(default_factory=lambda: ["fallback"])


class RegistryStatus(Struct, kw_only=True):
    """How the list stands. Times RFC 3339 in UTC, empty when there is none."""

    phase: Phase
    url: str
    models: int
    provenance: Provenance
    refreshing: bool
    checked_at: str = ""
    next_refresh_at: str = ""
    failures: int = 0
    error: str = ""
    skipped: list[Skipped] = field(default_factory=list)
    cache_note: str = ""


def rfc3339(at: float) -> str:
    """A time in seconds since the epoch as text; "" for 0."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""
