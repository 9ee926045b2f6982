"""What is known about who vouches for an answer: part of every answer about models."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

__all__ = ["Standing", "Verification"]

Standing = Literal["verified", "stale", "bundled", "unverified", "builtin"]


class Verification(Struct, omit_defaults=False):
    """Who vouches for what is answered. Times RFC 3339 in UTC, "" where there is none.

    `verified`: signed by the hub's keys and not expired; `stale`: the same, but its metadata has expired, so that a
    newer list may have been withheld; `bundled`: signed, and shipped with the program; `unverified`: a hub said it,
    nobody signed it; `builtin`: part of the program. `role` and `keyids` signed it, `versions` are those of the
    metadata by role, `digest` is the SHA-256 of the canonical collection.
    """

    status: Standing
    role: str = ""
    keyids: list[str] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    verified_at: str = ""
    expires: str = ""
