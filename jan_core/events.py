"""Events: something happened, told to whoever listens. An event is not a request and has no answer.

Extensions hear events through the `jan_event` hook; clients as JSON-RPC notifications whose method is the event's name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from msgspec import Struct

__all__ = ["Event", "EventBus"]


class Event(Struct):
    """`name` is dotted (`downloads.changed`), `data` plain data, `source` the id of the extension that emitted it.

    Events with the same non-empty `key` supersede each other: an unsent one may be replaced by a later one.
    """

    name: str
    data: Any = None
    source: str = "core"
    key: str = ""


class EventBus:
    """Fans events out to listeners, in order, on the event loop. A listener must not block and must not raise."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[Event], None]] = []

    def emit(self, event: Event) -> None:
        """Hand `event` to every listener there is now."""
        for listener in tuple(self._listeners):  # copied: a listener may end its own subscription
            listener(event)

    def subscribe(self, listener: Callable[[Event], None]) -> AbstractContextManager[None]:
        """Call `listener` with each event until the returned context ends."""

        @contextmanager
        def subscription() -> Any:
            self._listeners.append(listener)
            try:
                yield
            finally:
                self._listeners.remove(listener)

        return subscription()
