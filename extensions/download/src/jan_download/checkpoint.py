"""Makes what has been written durable, a few times a second, beside the thread that writes it.

Order: bytes written -> fdatasync -> offset committed. So an offset in the journal never promises what the
disk lacks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from .errors import DiskFull
from .journal import Journal
from .records import Job
from .store import Partial, Store

__all__ = ["INTERVAL", "Checkpointer", "Superseded"]

INTERVAL = 0.25
"""Seconds between checkpoints: the most that a crash costs in transfer, beside the time of one fdatasync."""


class Superseded(Exception):
    """Somebody else changed the job: this run must not touch it any more."""


class Checkpointer:
    """Runs for one transfer. The writer sets `written`; `failed` is called (once, from this thread) when it
    must stop.

    `reserve`: bytes of free disk space below which the transfer is stopped with DiskFull.
    """

    def __init__(
        self,
        job: Job,
        partial: Partial,
        *,
        journal: Journal,
        store: Store,
        reserve: int,
        report: Callable[[Job], None],
        failed: Callable[[], None],
    ) -> None:
        self.job = job
        self.written = job.offset
        self.error: Exception | None = None
        self._partial, self._journal, self._store = partial, journal, store
        self._reserve, self._report, self._failed = reserve, report, failed
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=f"checkpoint {job.id}", daemon=True)

    def __enter__(self) -> Checkpointer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """End, with a last checkpoint. It does not raise: what went wrong is in `error`."""
        self._closing.set()
        self._thread.join()
        if self.error is None:
            self._attempt()

    def _loop(self) -> None:
        while not self._closing.wait(INTERVAL):
            if not self._attempt():
                self._failed()
                return

    def _attempt(self) -> bool:
        try:
            self._checkpoint()
        except Exception as error:  # handed to the writer, who raises it in its own thread
            self.error = error
        return self.error is None

    def _checkpoint(self) -> None:
        offset = self.written
        if offset != self.job.offset:
            self._partial.sync()
            job = self._journal.update(
                self.job.id, self.job.run, offset=offset, high=max(offset, self.job.high), attempts=0
            )
            if job is None:
                raise Superseded
            self.job = job
        self._report(self.job)
        free = self._store.free()
        if free < self._reserve and not self._closing.is_set():
            raise DiskFull(
                f"the disk is nearly full: {free} bytes are free and {self._reserve} are to stay free",
                needed=self._reserve,
                free=free,
            )
