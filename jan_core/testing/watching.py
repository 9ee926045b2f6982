"""What is done to the process around the code under test: output, errors in the log, things left behind.

Each is a context manager or a before-and-after; none of them knows what an extension is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

__all__ = ["Residue", "errors_logged", "standard_output"]

POOLS = ("AnyIO worker thread", "asyncio_", "hooks of ", "stall-watch")
"""How the names of the host's own threads begin, and of the pools that everybody shares: they end by themselves."""


@contextmanager
def standard_output() -> Iterator[Callable[[], str]]:
    """Take standard output away, from Python and from the process; yields what was written to it so far."""
    with tempfile.TemporaryFile() as file, open(file.fileno(), "w", encoding="utf-8", closefd=False) as text:
        sys.stdout.flush()
        saved = os.dup(1)
        os.dup2(file.fileno(), 1)

        def written() -> str:
            text.flush()
            file.seek(0)
            return file.read().decode("utf-8", "replace")

        try:
            with redirect_stdout(_Still(text)):
                yield written
        finally:
            os.dup2(saved, 1)
            os.close(saved)


class _Still:
    """Writes through while it can: what an extension kept of it must not raise later."""

    def __init__(self, text: TextIO) -> None:
        self._text = text

    def write(self, data: str) -> int:
        return len(data) if self._text.closed else self._text.write(data)

    def flush(self) -> None:
        if not self._text.closed:
            self._text.flush()

    def fileno(self) -> int:
        return 1


class Residue:
    """Threads, tasks and log handlers that were not there when this was made.

    A handler that a library hung on its own logger when it was imported meanwhile belongs to that library, which stays.
    """

    def __init__(self) -> None:
        self._modules = set(sys.modules)
        self._before = {id(thing): thing for thing in (*_threads(), *asyncio.all_tasks(), *_handlers())}

    def left(self, within: float = 1.0) -> list[str]:
        """What is still there, in words. Threads have `within` seconds to end."""
        deadline = time.monotonic() + within
        threads = [t for t in _threads() if id(t) not in self._before]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [
            *(f"the thread {t.name!r} is still running" for t in threads if t.is_alive()),
            *(f"the task {t.get_name()!r} is still running" for t in asyncio.all_tasks() if id(t) not in self._before),
            *(f"{h!r} is still attached to a logger" for h in _handlers(self._of_library) if id(h) not in self._before),
        ]

    def _of_library(self, logger: str) -> bool:
        """Whether a logger is named like a module that was imported meanwhile. A generation's own modules have names of
        their own, which no logger should have."""
        return logger in sys.modules and logger not in self._modules


def _threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if not t.name.startswith(POOLS)]


def _handlers(aside: Callable[[str], bool] = lambda logger: False) -> list[logging.Handler]:
    """All but those of loggers whose name `aside` holds for."""
    named = dict(logging.Logger.manager.loggerDict)
    loggers = [logging.getLogger(), *(logger for name, logger in named.items() if not aside(name))]
    return [handler for logger in loggers for handler in getattr(logger, "handlers", ())]


@contextmanager
def errors_logged(name: str) -> Iterator[list[str]]:
    """The errors that logger `name` is told of inside the block, each with its exception."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            cause = record.exc_info[1] if record.exc_info else None
            told.append(f"{record.getMessage()}: {type(cause).__name__}: {cause}" if cause else record.getMessage())

    listener = Listener(logging.ERROR)
    logging.getLogger(name).addHandler(listener)
    try:
        yield told
    finally:
        logging.getLogger(name).removeHandler(listener)
