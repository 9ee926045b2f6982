"""When bytes may be moved: windows of local time, by the clock on the wall.

Whether a window is open is decided anew from the clock each time, so a change to summer time or a clock that jumps
needs no care. It stops and starts nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["Schedule", "instant"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_RANGE = re.compile(r"(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)")
_FORM = "it is written like `22:00-06:00` or `mon-fri 22:00-06:00, sat-sun`"


@dataclass(frozen=True)
class _Window:
    """From minute `first` of each of `days` to before minute `end`, which may lie in the next day."""

    days: frozenset[int]
    first: int
    end: int

    def holds(self, weekday: int, minute: int) -> bool:
        today = weekday in self.days and self.first <= minute < self.end
        return today or ((weekday - 1) % 7 in self.days and minute < self.end - _DAY)


@dataclass(frozen=True)
class Schedule:
    """The times of `settings.schedule`; without windows it is always open."""

    windows: tuple[_Window, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Clauses with commas between; each of days (`mon`, `mon-fri`), times (`22:00-06:00`), or days and then times.

        A time that ends before it begins ends on the next day. Raises ValueError, which names the part that is wrong.
        """
        if not text.strip():
            return cls()
        return cls(tuple(window for clause in text.lower().split(",") for window in _clause(clause)))

    def open(self, at: float) -> bool:
        """Whether bytes may be moved at `at` (s since the epoch)."""
        if not self.windows:
            return True
        local = datetime.fromtimestamp(at)
        return any(window.holds(local.weekday(), local.hour * 60 + local.minute) for window in self.windows)

    def opens(self, at: float) -> float:
        """The first moment from `at` on at which it is open."""
        if self.open(at):
            return at
        day = datetime.fromtimestamp(at).replace(hour=0, minute=0, second=0, microsecond=0)
        moments = {
            (day + timedelta(days=ahead, minutes=window.first)).replace(fold=fold).timestamp()
            for ahead in range(9)
            for window in self.windows
            for fold in (0, 1)
        }
        # Where the clock is set forward over the beginning of a window, it opens with that, on a quarter of an hour.
        quarter = at - at % 900
        moments |= {quarter + 900 * n for n in range(1, 9 * 96)}
        return next(moment for moment in sorted(moments) if moment > at and self.open(moment))


def _clause(text: str) -> list[_Window]:
    words = text.split()
    days: set[int] = set()
    while words and words[0][0].isalpha():
        days |= _days(words.pop(0))
    if not (days or words):
        raise ValueError(f"there is an empty part between commas; {_FORM}")
    chosen = frozenset(days or range(7))
    return [_Window(chosen, *_times(word)) for word in words] or [_Window(chosen, 0, _DAY)]


def _days(word: str) -> set[int]:
    first, dash, last = word.partition("-")
    if first not in _DAYS or (dash and last not in _DAYS):
        raise ValueError(f"{word!r} is no day of {' '.join(_DAYS)}, nor from one to another; {_FORM}")
    start = _DAYS.index(first)
    return {(start + n) % 7 for n in range((_DAYS.index(last or first) - start) % 7 + 1)}


def _times(word: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(word)
    hours = [int(part) for part in match.groups()] if match else [99] * 4
    first, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if max(hours[1], hours[3]) > 59 or first >= _DAY or end > _DAY or first == end:
        raise ValueError(f"{word!r} is no time of day from one minute to another; {_FORM}")
    return first, end if end > first else end + _DAY


def instant(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time; without an offset it is local time, and "" is 0.

    Raises ValueError.
    """
    if not text:
        return 0.0
    try:
        at = datetime.fromisoformat(text)
        seconds = at.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time such as 2030-01-31T22:00:00Z") from None
    if "T" not in text.upper() or not datetime(1970, 1, 2, tzinfo=UTC).timestamp() <= seconds < 253402214400:
        raise ValueError(f"{text!r} is no time such as 2030-01-31T22:00:00Z")
    return seconds
