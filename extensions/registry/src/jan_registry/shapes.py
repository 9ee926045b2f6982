"""Params and results of the methods about models. Every answer says where it comes from and who vouches for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from jan_core.types import DownloadFile, ModelContext, ModelRecord, Phase

from .signed.verification import Verification

__all__ = [
    "FeaturedQuery",
    "ModelAnswer",
    "ModelId",
    "ModelList",
    "ModelQuery",
    "Origin",
    "Provenance",
    "RefreshReport",
    "RegistryChanged",
    "RegistryStatus",
    "Resolution",
    "SearchQuery",
    "rfc3339",
]

Origin = Literal["network", "cache", "bundle", "builtin", "source"]
Limit = Annotated[int, Meta(ge=1, le=1000)]
Offset = Annotated[int, Meta(ge=0, le=10_000_000)]
Id = Annotated[str, Meta(max_length=256)]
SourceId = Annotated[str, Meta(max_length=64)]


class Provenance(Struct):
    """Where an answer comes from.

    `network`: the hub confirmed it to this process; `cache`: to an earlier one; `bundle`: shipped with the program;
    `builtin`: part of the program's code; `source`: another hub, asked just now or lately. `arm`: which of the two
    lists of the roll-out it is. `source` is an address or a source's id; `seq` the publisher's count of the list.
    `checked_at` is RFC 3339 in UTC, and `age` in seconds, since the hub last confirmed the list: "" and null for what
    was shipped.
    """

    origin: Origin
    arm: Literal["dynamic", "builtin", ""] = ""
    source: str = ""
    seq: int = 0
    checked_at: str = ""
    age: float | None = None
    note: str = ""


class FeaturedQuery(Struct, forbid_unknown_fields=True):
    """`context`: for whom; what is left out of it is filled in from this machine. It never leaves the machine."""

    context: ModelContext = field(default_factory=ModelContext)
    limit: Limit = 100


class SearchQuery(Struct, forbid_unknown_fields=True):
    """`text`: words that all occur in a model's id, name, publisher or tags, in any case; a word of one or two
    characters must begin a word there. Empty: every model.

    `source`: the id of another hub (`registry.sources`), which is then asked and learns the text. `cursor`: continues
    what such a hub answered; `offset` is for our own list.
    """

    text: Annotated[str, Meta(max_length=1000)] = ""
    limit: Limit = 100
    offset: Offset = 0
    source: SourceId = ""
    cursor: Annotated[str, Meta(max_length=4096)] = ""


class ModelId(Struct, forbid_unknown_fields=True):
    """`source`: as in `SearchQuery`."""

    id: Id
    source: SourceId = ""


class ModelQuery(Struct, forbid_unknown_fields=True):
    """`variant`: the id of one of the model's variants; empty: the first."""

    id: Id
    variant: Annotated[str, Meta(max_length=128)] = ""
    source: SourceId = ""


class ModelList(Struct):
    """`total`: how many there are beside the limit; of a search, counted up to 1,000, without those of this page that
    are not for this machine or were revoked: a page may be short. `cursor`: what continues the answer of another hub.
    `experiment` and `branch`: which experiment decided what is featured, "" for none."""

    models: list[ModelRecord]
    total: int
    provenance: Provenance
    verification: Verification
    cursor: str = ""
    experiment: str = ""
    branch: str = ""


class ModelAnswer(Struct):
    """`revoked`: why nothing of the model can be had any more, in the operator's words; "" when it can."""

    model: ModelRecord
    provenance: Provenance
    verification: Verification
    revoked: str = ""


class Resolution(Struct):
    """What to download to have a model. `checkable`: the SHA-256 of every file is known."""

    id: str
    variant: str
    files: list[DownloadFile]
    checkable: bool
    provenance: Provenance
    verification: Verification


class RefreshReport(Struct):
    """What a refresh found. `added`, `removed` and `changed` count models; `deltas` and `fulls` say how many
    collections came as a change to the last state, and how many whole. `bytes` as they came over the line."""

    outcome: Literal["updated", "unchanged"]
    models: int
    added: int
    removed: int
    changed: int
    deltas: int
    fulls: int
    requests: int
    bytes: int
    duration: float
    notes: list[str]
    provenance: Provenance
    verification: Verification


class RegistryChanged(Struct):
    """Data of the event `registry.changed`: another list is served. The counts are those of `RefreshReport`."""

    added: int
    removed: int
    changed: int
    models: int
    seq: int


class RegistryStatus(Struct, kw_only=True):
    """How the list stands. Times RFC 3339 in UTC, empty when there is none.

    `age`: seconds since the hub last confirmed the list. `collections`: who vouches for each of them. `notes`: what
    had to be repaired, and what should be known.
    """

    phase: Phase
    url: str
    models: int
    provenance: Provenance
    verification: Verification
    collections: dict[str, Verification] = field(default_factory=dict)
    refreshing: bool = False
    next_refresh_at: str = ""
    failures: int = 0
    error: str = ""
    notes: list[str] = field(default_factory=list)


def rfc3339(at: float) -> str:
    """A time in seconds since the epoch as text; "" for 0."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""
