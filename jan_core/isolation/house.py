"""What an isolated extension lives in: its context reaches into this as it would into the host (`live.House`).

Methods and hooks of others go over the link, events and log lines leave as notifications, settings are what the host
said last. In the child only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from ..dispatch import Broadcast, Dispatcher, Outcome
from ..events import Event, EventBus
from ..hooks import Hooks
from ..hookspecs import hookspecs
from ..settings import Settings
from .caller import LinkCaller
from .link import Link
from .shapes import HookCall, Line, Told

if TYPE_CHECKING:
    import httpx

__all__ = ["ChildHouse", "Lines"]

MOST_LINES = 1_000
"""Log lines kept while the extension is being imported and nobody reads them yet."""


class ChildHouse:
    """Implements `live.House`. `damaged` is called when the way to the host cannot be used any more."""

    def __init__(self, calls: int, damaged: Callable[[str], None]) -> None:
        self.outgoing = EventBus()
        """What leaves as notifications of the peer."""
        self.bus: EventBus = _Emitted(self.outgoing)
        self.settings: Settings = Mirror()
        self.dispatcher = Dispatcher()
        self.data_dir = Path()
        self._damaged = damaged
        self._link = Link(calls, lambda name, params: None, self._lost, watched=False)
        self.hooks = Hooks(_Elsewhere(self._link))
        self._http: httpx.AsyncClient | None = None

    def client(self, name: str) -> LinkCaller:
        """A caller of the host's methods. It is this extension, whatever the name."""
        return LinkCaller(self._link)

    def http(self) -> httpx.AsyncClient:
        """A client of this process; the environment's proxy settings hold for it as for the host's own."""
        if self._http is None:
            import httpx  # the core needs none; whoever uses it depends on it

            self._http = httpx.AsyncClient(timeout=30.0)
        return self._http

    def tell(self, name: str, data: Any) -> None:
        """Send a notification to the host."""
        self.outgoing.emit(Event(name, data))

    def _lost(self, why: str) -> None:
        self._link.fail(lambda: ConnectionError("the host has gone"))
        if why:
            self._damaged(why)

    async def aclose(self) -> None:
        """Give back what was opened here."""
        if self._http is not None:
            await self._http.aclose()


class Mirror(Settings):
    """The extension's settings as the host said them last. They are never written here."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))
        self._said: dict[str, dict[str, Any]] = {}

    def replace(self, section: str, values: dict[str, Any]) -> None:
        """These are the values from now on."""
        self._said, self._sections = {section: values}, None

    def _load(self, *, strict: bool = False) -> dict[str, dict[str, Any]]:
        return self._said


class _Emitted(EventBus):
    """Where the extension emits events: they leave, and come back with everybody's through its `jan_event` hook."""

    def __init__(self, outgoing: EventBus) -> None:
        super().__init__()
        self._outgoing = outgoing

    def emit(self, event: Event) -> None:
        # With a key like the event's own, so that an unsent one is replaced here already.
        key = f"{event.name} {event.key}" if event.key else ""
        self._outgoing.emit(Event("$/event", Told(event.name, event.data, event.key), key=key))


class _Elsewhere(Dispatcher):
    """Calls hooks of the whole house: the host does it, and says what came of it."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link

    async def broadcast(self, name: str, **arguments: Any) -> Broadcast[Any]:
        answer = await self._ask(name, arguments)
        return Broadcast([_outcome(name, outcome) for outcome in answer["outcomes"]])

    async def first(self, name: str, **arguments: Any) -> Outcome[Any] | None:
        answer = await self._ask(name, arguments)
        return None if answer is None else _outcome(name, answer)

    async def pipeline(self, name: str, argument: str, value: Any, *, until: Any = None, **arguments: Any) -> Any:
        # `until` is the host's: it calls the same façade.
        answer = await self._ask(name, {**arguments, argument: value})
        return msgspec.convert(answer, get_type_hints(hookspecs()[name].function)["return"])

    async def _ask(self, name: str, arguments: dict[str, Any]) -> Any:
        return await self._link.ask("$/hooks", HookCall(name, arguments)).whole()


def _outcome(name: str, data: Any) -> Outcome[Any]:
    outcome = msgspec.convert(data, Outcome[Any])
    kind = get_type_hints(hookspecs()[name].function)["return"]
    value = None if outcome.value is None else msgspec.convert(outcome.value, kind)
    return Outcome(outcome.extension, outcome.generation, outcome.duration, value, outcome.failure)


class Lines(logging.Handler):
    """Sends log records to the host, whatever thread they come from; keeps them until there is a way."""

    def __init__(self, id: str) -> None:
        super().__init__()
        self._own = f"jan.{id}"
        self._kept: list[Line] = []
        self._tell: Callable[[str, Any], None] | None = None

    def open(self, tell: Callable[[str, Any], None]) -> None:
        """Send from now on, on this thread's event loop."""
        self._loop, self._tell = asyncio.get_running_loop(), tell
        kept, self._kept = self._kept, []
        for line in kept:
            tell("$/log", line)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        if self._tell is None:
            if len(self._kept) < MOST_LINES:
                self._kept.append(line)
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._tell("$/log", line)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell, "$/log", line)

    def _line(self, record: logging.LogRecord) -> Line:
        name = record.name
        if name != self._own and not name.startswith(self._own + "."):
            name = f"{self._own}.{name}"  # what the libraries in here say is this extension's, too
        trace = "".join(traceback.format_exception(record.exc_info[1])) if record.exc_info else ""
        return Line(name, record.levelno, _clean(record.getMessage()), record.created, _clean(trace.rstrip()))


def _clean(text: str) -> str:
    """Without halves of characters, which file names may have and JSON may not."""
    return text.encode("utf-8", "replace").decode()
