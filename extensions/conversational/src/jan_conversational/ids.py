"""Ids that sort by the time they were made: UUIDs of version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

__all__ = ["INCOGNITO", "Ids"]

INCOGNITO = "incognito-"
"""How the id of a thread begins that lives in memory only: an id says by itself where its thread is."""

_SUB_MILLISECOND = 12
"""Bits of the field after the milliseconds, used for their fraction (RFC 9562, section 6.2, method 3)."""


class Ids:
    """Makes ids. Each is greater than all before it from the same object, also when the clock steps back."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._last = 0

    def new(self) -> str:
        """36 characters: lower-case hex in groups of 8-4-4-4-12."""
        millis, nanos = divmod(self._clock(), 1_000_000)
        with self._mutex:
            tick = (millis << _SUB_MILLISECOND) | (nanos << _SUB_MILLISECOND) // 1_000_000
            self._last = tick = max(tick, self._last + 1)
        millis, fraction = tick >> _SUB_MILLISECOND, tick & 0xFFF
        random = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        number = (millis & ((1 << 48) - 1)) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
