"""A thread that computes in pure Python for ever, as a plugin's may: it never waits and never lets go by itself."""

from __future__ import annotations

import sys
import threading

import msgspec

from jan_core import Empty, method


class Strain(msgspec.Struct):
    """So many busy threads, and the interpreter's switch interval (s); 0 leaves it as it is."""

    threads: int
    interval: float = 0.0


class Busy:
    """Threads that are stopped by the next call."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    @method("bench.strain")
    def strain(self, params: Strain) -> Strain:
        """Keep the interpreter busy, or let it rest. Answers with the interval that holds."""
        self._stop.set()
        self._stop = threading.Event()
        if params.interval:
            sys.setswitchinterval(params.interval)
        for _ in range(params.threads):
            threading.Thread(target=_compute, args=(self._stop,), daemon=True).start()
        return Strain(params.threads, sys.getswitchinterval())

    @method("bench.nothing")
    def nothing(self, params: Empty) -> Empty:
        """Answer at once."""
        return Empty()


def _compute(stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        for n in range(10_000):
            number = (number * 31 + n) % 1_000_003
