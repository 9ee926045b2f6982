"""When a server wants to be left alone, and until when: what its headers say, remembered for each who was told.

It sends nothing and sleeps for nothing; whoever asks is told how long it lasts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

__all__ = ["Limits", "wait_asked"]

_MAX_WAIT = 24 * 3600.0
_LEFT = re.compile(r"(?:^|;)\s*r\s*=\s*(\d{1,9})(?=\s*(?:;|$))")
_RESET = re.compile(r"(?:^|;)\s*t\s*=\s*(\d{1,9})(?=\s*(?:;|$))")


class Limits:
    """Until when (seconds since the epoch) each scope is left alone. A scope is an origin, and who asks it."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def hold(self, scope: str, until: float) -> None:
        self._until[scope] = max(until, self._until.get(scope, 0.0))

    def left(self, scope: str, now: float) -> float:
        """Seconds until the scope may be asked again; 0: it may. Never longer than a day, whatever the clock did."""
        until = self._until.get(scope, 0.0)
        if until <= now:
            self._until.pop(scope, None)
            return 0.0
        return min(until - now, _MAX_WAIT)


def wait_asked(status: int, headers: Mapping[str, str], now: float) -> float:
    """How many seconds a server wants not to be asked, by its answer. 0: it does not mind.

    The longest of `Retry-After` (RFC 9110), `Backoff` (Kinto), and `RateLimit` when nothing is left
    (draft-ietf-httpapi-ratelimit-headers: `"api";r=0;t=55`). At least a second after a 429 that names none.
    """
    waits = [_seconds(headers.get("retry-after", ""), headers.get("date", ""), now)]
    waits.append(_seconds(headers.get("backoff", ""), "", now))
    for policy in headers.get("ratelimit", "").split(","):
        left, reset = _LEFT.search(policy), _RESET.search(policy)
        if left and reset and int(left[1]) == 0:
            waits.append(int(reset[1]) + 1.0)
    if status == 429:
        waits.append(1.0)
    return min(max(waits), _MAX_WAIT)


def _seconds(value: str, date: str, now: float) -> float:
    """A delay as it stands in a header: seconds, or a date (against the server's own clock, where it says what that
    is)."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    then, here = _moment(value), _moment(date)
    return max(0.0, then - (now if here is None else here)) if then is not None else 0.0


def _moment(value: str) -> float | None:
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
