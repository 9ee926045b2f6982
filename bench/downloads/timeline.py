"""What a process has written at each moment, looked at from outside."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple, Self

import proc
from client import NotTakenError

__all__ = ["Timeline"]

LOOK = 0.005


class Moment(NamedTuple):
    """`at`: time.time(); `written`: bytes since the beginning."""

    at: float
    written: int


class Timeline:
    """Looks every 5 ms while it is entered. What the journal writes is counted, too: some kB a second."""

    def __init__(self, pid: int) -> None:
        self._pid, self._stop = pid, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.moments: list[Moment] = []

    def __enter__(self) -> Self:
        self._base = proc.written(self._pid)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def written(self) -> int:
        """Bytes by now."""
        return self.moments[-1].written if self.moments else 0

    def reached(self, count: int) -> float | None:
        """When that many bytes were written."""
        return next((moment.at for moment in self.moments if moment.written >= count), None)

    def longest_pause(self, since: float, until: float, block: int = 1 << 16) -> float:
        """Seconds of the longest time between then and then in which less than `block` bytes came."""
        longest, last = 0.0, None
        for moment in self.moments:
            if not since <= moment.at <= until:
                continue
            if last is None or moment.written - last.written >= block:
                last = moment
            longest = max(longest, moment.at - last.at)
        return longest

    def _run(self) -> None:
        while not self._stop.wait(LOOK):
            try:
                self.moments.append(Moment(time.time(), proc.written(self._pid) - self._base))
            except NotTakenError:
                return  # it has ended
