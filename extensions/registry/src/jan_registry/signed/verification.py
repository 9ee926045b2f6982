"""What is known about who vouches for an answer: part of every answer about models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from msgspec import Struct, field

if TYPE_CHECKING:
    from .store import CollectionState

__all__ = ["Standing", "Verification", "standing", "vouch"]

_CLOCK = 86400
"""Seconds by which a clock may fall back before it counts as wrong: a zone set by mistake, a second system's habits."""

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


def standing(state: CollectionState, now: float) -> Standing:
    """How good what is stored is at `now` (seconds since the epoch).

    A clock that stands before the last check is wrong, and cannot say what has expired: then it is `stale` too.
    """
    if state.origin == "bundle":
        return "bundled"
    return "verified" if state.checked_at - _CLOCK <= now < state.expires_at else "stale"


def vouch(state: CollectionState, now: float) -> Verification:
    """Who vouches for a stored collection."""
    return Verification(
        status=standing(state, now),
        role=state.role,
        keyids=state.keyids,
        versions=state.versions,
        digest=state.sha256,
        verified_at=_rfc3339(state.verified_at),
        expires=_rfc3339(state.expires_at),
    )


def _rfc3339(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") if at else ""
