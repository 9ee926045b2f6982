"""Times: whole microseconds since the epoch in the database, RFC 3339 in UTC outside."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

__all__ = ["now", "rfc3339"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(micros: int) -> str:
    """`2026-01-31T12:00:00.123456Z`"""
    return (_EPOCH + timedelta(microseconds=micros)).isoformat(timespec="microseconds").replace("+00:00", "Z")
