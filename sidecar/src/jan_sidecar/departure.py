"""The end of the process, guaranteed: a while after its client has gone, whatever is still going on.

The event loop ends a session properly (`jan_core.rpc.stdio`). But an extension may block that loop, swallow its own
cancellation or hang in its clean-up, and then the loop cannot end anything. So a thread that needs no loop watches for
the same signs: the other end of standard input closing, or the parent's death. From the first sign on, the process has
`LIMIT` seconds. On Windows, where it has not been run, the parent's death is the only sign that it sees.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import threading

from jan_core.rpc import parent
from jan_core.rpc.transports import HANG_UP

__all__ = ["LIMIT", "Departure"]

LIMIT = 2.4
"""Seconds: the process is gone 3 s after its client, and a proper end needs a fraction of that."""

FLUSH_LIMIT = 0.2
"""Seconds the last lines of the log may take to be written."""


class Departure:
    """One per process. `watch` before the loop runs, `begin` when the end is known."""

    def __init__(self) -> None:
        self._begun = threading.Event()

    def begin(self) -> None:
        """Start the clock. Any number of times, from anywhere, a signal handler included."""
        if not self._begun.is_set():
            self._begun.set()
            clock = threading.Timer(LIMIT, leave, (0,))
            clock.daemon = True
            clock.start()

    def watch(self, read: int) -> None:
        """Begin by itself when the writing end of `read` is closed or the parent process dies."""
        parent.watch(self.begin)
        if sys.platform != "win32":
            threading.Thread(target=self._watch, args=(read,), name="departure", daemon=True).start()

    def _watch(self, read: int) -> None:
        signs = select.poll()
        signs.register(read, HANG_UP)  # errors are always told, and bytes are nobody's business here
        signs.poll()
        self.begin()


def leave(code: int) -> None:
    """End the process now: no thread in a blocking read, no extension can hold it, nor a log that nobody reads."""
    last = threading.Thread(target=_flush, name="last words", daemon=True)
    last.start()
    last.join(FLUSH_LIMIT)
    os._exit(code)


def _flush() -> None:
    # Both wait for whoever is writing a line, and that one for ever if standard error is full and not read.
    logging.shutdown()
    sys.stderr.flush()
