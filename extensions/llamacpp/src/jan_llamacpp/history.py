"""What went wrong with a model lately, and what follows for its next start.

* A failed load is remembered, and answered with again without trying, for a time that doubles with each failure.
* A worker that died soon after its start is started again at once the first time, then after growing pauses.
* One that died too often, however long it lived in between, is not started at all for a while: its requests are refused
  at once, with the cause of the last death. After that the next request is the trial; one more death, and it is refused
  for twice as long.

Knows no workers and no event loop; it only keeps the books.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from jan_core import JanError

__all__ = ["History"]

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
STEADY = 60.0
"""A worker that lived this long (seconds) is not in a crash loop."""
MOST_DEATHS, WINDOW = 5, 600.0
"""So many deaths in so many seconds are too many."""
FIRST_REFUSAL, LONGEST_REFUSAL = 60.0, 300.0


class History:
    """Of one model. Times are those of `clock`, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.error: JanError | None = None
        """Why it is not loaded: a failed load, or too many deaths. Gone with the next load that succeeds."""
        self.not_before = 0.0
        self.lives = 0
        """Short lives in a row."""
        self._failures = 0
        self._deaths: list[float] = []
        self._refusing = False

    def failed(self, error: JanError) -> None:
        """A load failed."""
        self.error, self._failures, self._refusing = error, self._failures + 1, False
        self.not_before = self._clock() + pause(self._failures)

    def died(self, id: str, lived: float, error: JanError) -> None:
        """The worker of model `id` died of `error` after `lived` seconds."""
        now = self._clock()
        self._deaths = [*(death for death in self._deaths if now - death < WINDOW), now]
        self.lives = 1 if lived >= STEADY else self.lives + 1
        self.not_before = now + (pause(self.lives - 1) if self.lives > 1 else 0.0)
        excess = len(self._deaths) - MOST_DEATHS
        if excess >= 0:
            self.not_before = now + min(LONGEST_REFUSAL, FIRST_REFUSAL * 2.0**excess)
            message = f"{id} ended {len(self._deaths)} times in {WINDOW / 60:g} minutes ({error.message})"
            self.error, self._refusing = _like(error, message, deaths=len(self._deaths)), True

    def loaded(self) -> None:
        """A load succeeded."""
        self.error, self._failures, self._refusing = None, 0, False

    @property
    def waits(self) -> bool:
        """Is it too early for the next start?"""
        return self._clock() < self.not_before

    def refusal(self) -> JanError | None:
        """What requests are refused with at this moment, if they are."""
        if self.error is None or not self.waits:
            return None
        if not self._refusing:
            return self.error
        left = round(self.not_before - self._clock(), 1)
        return _like(self.error, f"{self.error.message}; it is tried again in {left:g} seconds", retry_after=left)


def pause(count: int) -> float:
    """Seconds to wait after the `count`th time in a row something went wrong."""
    return float(min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(count - 1, 10)))


def _like(error: JanError, message: str, **more: float) -> JanError:
    return type(error)(message, **{**error.data, **more})
