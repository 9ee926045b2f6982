"""For how long an answer is good, by what was asked for. Pure."""

from __future__ import annotations

from typing import Literal

from .cache import Entry
from .transfer import Response

__all__ = ["Kind", "entry_of", "shown_while_asking"]

Kind = Literal["detail", "search", "base", "immutable", "none"]
"""What is asked for: one thing, a list or search, a whole that only what changed since is asked for, something that a
hash or commit names, or what must not be kept."""

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_HEADERS = frozenset({"link", "content-type", "docker-content-digest", "x-repo-commit", "x-error-code"})


def shown_while_asking(kind: Kind, status: int) -> int:
    """Seconds since it was fetched, for which an answer is shown while it is asked anew."""
    if status != 200:
        return 0
    return {"detail": _DAY, "search": _HOUR, "base": 0, "immutable": 365 * _DAY, "none": 0}[kind]


def entry_of(kind: Kind, response: Response, now: float, *, confirmed: Entry | None = None) -> Entry:
    """An answer as it is kept. `confirmed`: what was known, when the response says that it has not changed (304).

    What is not there is not there for ten minutes.
    """
    headers = {name: value for name, value in response.headers.items() if name in _HEADERS}
    etag, modified = response.headers.get("etag", ""), response.headers.get("last-modified", "")
    if confirmed is not None:
        status, body, headers = confirmed.status, confirmed.body, confirmed.headers | headers
        etag, modified = etag or confirmed.etag, modified or confirmed.last_modified
    elif response.status == 200:
        status, body = 200, response.body
    else:
        status, body = 404, b""
    fresh, stale = {
        "detail": (_HOUR, 30 * _DAY),
        "search": (5 * _MINUTE, _DAY),
        "base": (14 * _DAY, 90 * _DAY),
        "immutable": (30 * _DAY, 365 * _DAY),
        "none": (0, 0),
    }[kind]
    if status != 200:
        fresh = stale = 10 * _MINUTE
    at = int(now)
    return Entry(status, headers, body, at, at + fresh, at + stale, etag[:300], modified[:100])
