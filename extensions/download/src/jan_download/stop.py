"""Ending a run from outside."""

from __future__ import annotations

import threading

from .transport import Answer

__all__ = ["Stop", "Stopped"]


class Stopped(Exception):
    """The run was told to stop; what it had is kept."""


class Stop:
    """Ends a run from outside, also while it waits for bytes that never come."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._answer: Answer | None = None

    def set(self) -> None:
        self._event.set()
        self.interrupt()

    def is_set(self) -> bool:
        return self._event.is_set()

    def interrupt(self) -> None:
        """Wake the reader without ending the run."""
        with self._lock:
            if self._answer is not None:
                self._answer.interrupt()

    def watch(self, answer: Answer | None) -> None:
        """Name the response that the run reads now (None: none). Raises Stopped when it came too late."""
        with self._lock:
            self._answer = answer
        if answer is not None and self.is_set():
            raise Stopped
