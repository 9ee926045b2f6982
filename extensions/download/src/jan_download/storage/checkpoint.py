"""Makes what has been written durable, a few times a second, beside the threads that write it.

Order: bytes written -> what was written is collected -> fdatasync -> committed. What is collected was written before
the fdatasync began, so the journal never promises what the disk lacks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ..errors import DiskFull
from ..journal import Journal
from ..records import Job, Piece
from .partial import Partial
from .store import Store

__all__ = ["INTERVAL", "Checkpointer", "Superseded"]

INTERVAL = 0.25
"""Seconds between checkpoints: the most that a crash costs in transfer, beside the time of one fdatasync."""


class Superseded(Exception):
    """Somebody else changed the job: this run must not touch it any more."""


class Checkpointer:
    """Runs for one transfer, which ends it by leaving the `with`; that makes a last checkpoint.

    `collect` gives the pieces that changed since it was asked last, and the fields of the job that did; it is asked
    from this thread before each fdatasync. `report` gets the job as it was last journaled, after each checkpoint and
    when nothing changed too. `failed` is called (once, from this thread) when the transfer must stop; why is in
    `error`. `reserve`: bytes of free disk space below which it is stopped with DiskFull.
    """

    def __init__(
        self,
        job: Job,
        partial: Partial,
        *,
        journal: Journal,
        store: Store,
        reserve: int,
        collect: Callable[[], tuple[list[Piece], dict[str, Any]]],
        report: Callable[[Job], None],
        failed: Callable[[], None],
    ) -> None:
        self.job = job
        self.error: Exception | None = None
        self._partial, self._journal, self._store = partial, journal, store
        self._reserve, self._collect, self._report, self._failed = reserve, collect, report, failed
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
        except Exception as error:  # handed to the transfer, which raises it in its own thread
            self.error = error
        return self.error is None

    def _checkpoint(self) -> None:
        pieces, changes = self._collect()
        if pieces or changes:
            self._partial.sync()
            job = self._journal.checkpoint(self.job.id, self.job.run, pieces, **changes)
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
