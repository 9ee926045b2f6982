"""Events: something happened, told to whoever listens. An event is not a request and has no answer.

Extensions hear events through the `jan_event` hook; clients as JSON-RPC notifications whose method is the event's name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from msgspec import Struct

from .extension import Failure

__all__ = ["Event", "EventBus", "core_events"]


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


class ExtensionChanged(Struct, rename="camel"):
    """Data of `extensions.changed`: an extension came up, went away, or was reloaded. `schema_hash` is the host's new
    one."""

    id: str
    state: str
    generation: int
    methods_added: list[str]
    methods_removed: list[str]
    schema_hash: str


class SettingsChanged(Struct):
    """Data of `settings.changed`: all values of one extension, defaults included."""

    extension: str
    values: dict[str, Any]


class ExtensionReloadFailed(Struct):
    """Data of `extensions.reloadFailed`: the generation before goes on serving."""

    id: str
    failure: Failure


def core_events() -> dict[str, Any]:
    """The events of the host itself, by name, with the types of their data. Extensions declare theirs on methods."""
    return {
        "extensions.changed": ExtensionChanged,
        "extensions.reloadFailed": ExtensionReloadFailed,
        "settings.changed": SettingsChanged,
    }
