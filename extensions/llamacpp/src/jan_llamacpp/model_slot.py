"""A model's place in memory, as the pool keeps it: its worker or its load, and who uses it.

Decides nothing: when it is filled and emptied is `pool.py`'s business.
"""

from __future__ import annotations

import asyncio
import time

from jan_core import Progress

from .client import WorkerProcess

__all__ = ["ModelSlot"]


class ModelSlot:
    """A model that is loading or loaded. `users` counts the requests inside and those waiting for the load."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.users = 0
        self.used_at = self.started_at = time.monotonic()
        self.worker: WorkerProcess | None = None
        self.load: asyncio.Task[WorkerProcess]
        self.listeners: list[Progress] = []
        self.leaving = False
        self.draining = False
        """It takes no new requests, so that another model gets its place."""
        self.idle: asyncio.TimerHandle | None = None

    def report(self, message: str, done: float | None, total: float | None) -> None:
        for listener in tuple(self.listeners):
            try:
                listener(message, done, total)
            except Exception:  # It is one request's; the load is everybody's.
                self.listeners.remove(listener)
