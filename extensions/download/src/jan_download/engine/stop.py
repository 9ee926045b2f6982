"""Ending a run from outside."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

__all__ = ["Stop", "Stopped"]

T = TypeVar("T")


class Stopped(Exception):
    """The run was told to stop; what it had is kept."""


class Stop:
    """Ends a run from any thread, also while it waits for bytes that never come. It does not wait for the end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []

    def set(self) -> None:
        """Stop. What the run asked to be called is called now, once, in this thread."""
        with self._lock:
            self._event.set()
            calls, self._calls = self._calls, []
        for call in calls:
            call()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, and answer whether it was stopped meanwhile."""
        return self._event.wait(seconds)

    def check(self) -> None:
        """Raise Stopped when it was stopped."""
        if self.is_set():
            raise Stopped

    def unless_stopped(self, result: T) -> T:
        """What came of something that ends early, and empty, when this is stopped. Raises Stopped."""
        if not result:
            self.check()
        return result

    def aside(self, work: Callable[[], T], unwanted: Callable[[T], None] = lambda _: None) -> T:
        """Do what may hang in a thread of its own, so that this one ends when it is stopped. Raises what `work` does,
        and Stopped; what came of it all the same is given to `unwanted`."""
        results: list[T] = []
        errors: list[BaseException] = []
        over = threading.Event()

        def perform() -> None:
            try:
                results.append(work())
            except BaseException as error:  # raised below, in the thread that asked
                errors.append(error)
            over.set()
            if self.is_set():
                drop()

        def drop() -> None:
            with contextlib.suppress(IndexError):  # it has been taken, by this thread or that
                unwanted(results.pop())

        threading.Thread(target=perform, name="download aside", daemon=True).start()
        with self.calling(over.set):
            over.wait()
        if self.is_set():
            drop()
            raise Stopped
        if errors:
            raise errors[0]
        try:
            return results.pop()
        except IndexError:
            raise Stopped from None

    @contextlib.contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called when it is stopped within the block; at once when it is already."""
        with self._lock:
            late = self.is_set()
            if not late:
                self._calls.append(call)
        if late:
            call()
        try:
            yield
        finally:
            with self._lock, contextlib.suppress(ValueError):
                self._calls.remove(call)
