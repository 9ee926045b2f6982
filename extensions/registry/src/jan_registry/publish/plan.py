"""What a publication does, or would do: plain data, for a dry run, for an answer and for a log."""

from __future__ import annotations

from msgspec import Struct, field

from .signing import Lack

__all__ = ["CollectionChange", "Plan", "Published", "RoleChange"]


class CollectionChange(Struct, frozen=True, kw_only=True):
    """A collection whose content becomes another one. `full_bytes`, `delta_bytes`: what a client downloads that has
    nothing, or the version before (0: there is no such delta); `delta_from`: the versions that have a delta to `seq`.
    """

    name: str
    seq: int
    count: int
    created: list[str]
    updated: list[str]
    deleted: list[str]
    full_bytes: int
    delta_bytes: int
    delta_from: list[int]


class RoleChange(Struct, frozen=True, kw_only=True):
    """Metadata that are signed anew. `before`: the version until now, 0 when there is none; `expires` in seconds since
    the epoch; `reason`: `first`, `changed`, `keys changed`, `expires soon`, `expired`, `signed elsewhere` or `always`.
    """

    role: str
    before: int
    version: int
    expires: int
    reason: str


class Plan(Struct, frozen=True, kw_only=True):
    """`version`: of the timestamp, which grows with each publication. `missing`: role -> the signatures that are not
    there; with any of them nothing can be published. `due`: the same for what expires soon and could be signed anew by
    the way, and for collections that have expired. `bytes_written`: all files that are new."""

    version: int
    roles: list[RoleChange]
    collections: list[CollectionChange] = field(default_factory=list)
    missing: dict[str, Lack] = field(default_factory=dict)
    due: dict[str, Lack] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    bytes_written: int = 0


class Published(Plan, frozen=True, kw_only=True):
    """What was done. `pruned`: old files that were deleted, as paths below the tree."""

    pruned: list[str] = field(default_factory=list)
