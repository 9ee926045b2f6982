"""What leaves a peer: answers, stream items, progress and events, gathered into few writes.

Back-pressure is decided here. While the client does not read, streams wait, progress reports are left out, and events
that supersede each other replace each other. Answers are always kept: each is owed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..events import Event
from . import messages
from .framing import MAX_MESSAGE
from .messages import Id, Notification, ProgressParams, ProgressValue, StreamParams, encode
from .transports import Transport

__all__ = ["Outbox", "WireCall"]

log = logging.getLogger(__name__)

FLUSH_AT = 64 << 10
"""Bytes gathered before they are handed to the transport at once: the size of a pipe."""

MAX_PENDING_EVENTS = 1024
"""Events kept for a client that does not read. Those with a key replace each other; of the rest, the oldest go."""


class Outbox:
    """Gathers messages, frames them with `frames` and writes them to the transport, once per turn of the event loop."""

    def __init__(self, transport: Transport, frames: Callable[[list[bytes]], bytes]) -> None:
        self.transport, self._frames = transport, frames
        self._loop = asyncio.get_running_loop()
        self.waiting: list[bytes] = []
        """Messages not yet handed to the transport."""
        self._size = 0
        self._flush_due = False
        self._events: dict[Any, Event] = {}
        self._delivering: asyncio.Task[None] | None = None

    def send(self, message: bytes) -> None:
        """Send one message."""
        self.waiting.append(message)
        self._size += len(message)
        if self._size >= FLUSH_AT:
            self.flush()
        elif not self._flush_due:
            # Once per turn of the loop: what the tasks of this turn produce leaves in one write.
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def hold(self) -> None:
        """Gather what comes now, without arranging for a flush: the caller will."""
        self._flush_due = True

    def flush(self) -> None:
        """Hand everything that waits to the transport."""
        self._flush_due = False
        if self.waiting:
            waiting, self.waiting, self._size = self.waiting, [], 0
            self.transport.write(self._frames(waiting))

    def progress(self, token: Id, value: ProgressValue) -> None:
        """Send a progress report; one that comes while the client is not reading is left out."""
        if value.kind == "report" and self.transport.blocked:
            return
        self.send(messages.notification("$/progress", ProgressParams(token, value)))

    def event(self, event: Event) -> None:
        """Send an event, or keep it until the client reads again."""
        if not self.transport.blocked and not self._events:
            self._send_event(event)
            return
        key = (event.name, event.key) if event.key else id(event)
        self._events.pop(key, None)
        self._events[key] = event
        if len(self._events) > MAX_PENDING_EVENTS:
            del self._events[next(iter(self._events))]
        if self._delivering is None:
            self._delivering = self._loop.create_task(self._deliver())

    def close(self) -> None:
        """Keep nothing back any more."""
        if self._delivering is not None:
            self._delivering.cancel()
        self.flush()

    async def _deliver(self) -> None:
        try:
            while self._events:
                await self.transport.drained()
                key = next(iter(self._events))
                self._send_event(self._events.pop(key))
        finally:
            self._delivering = None

    def _send_event(self, event: Event) -> None:
        try:
            text = messages.notification(event.name, event.data)
            if len(text) > MAX_MESSAGE:
                raise ValueError(f"an event of {len(text)} bytes, more than a message may have")
            self.send(text)
        except Exception as error:  # an event whose data is not data is its emitter's defect
            log.error("event %s of %s cannot be sent", event.name, event.source, exc_info=error)


class WireCall:
    """The `Call` of a request that came over the wire. `id` None: a notification, whose items nobody hears."""

    __slots__ = ("_begun", "_ended", "_id", "_outbox", "_seq", "_token", "caller")

    def __init__(self, outbox: Outbox, caller: str, id: Id | None, token: Id | None) -> None:
        self._outbox, self.caller, self._id, self._token = outbox, caller, id, token
        self._seq = 0
        self._begun = self._ended = False

    async def send(self, item: Any) -> None:
        if self._id is None or self._ended:
            await asyncio.sleep(0)  # nobody listens; others must still have their turn
            return
        # In one function, and not in layers: tokens come in tens of thousands.
        outbox, seq = self._outbox, self._seq
        text = encode(Notification("$/stream", StreamParams(self._id, seq, item)))
        if len(text) > MAX_MESSAGE:
            raise ValueError(f"an item of {len(text)} bytes, more than a message may have")
        outbox.send(text)
        self._seq = seq + 1
        if outbox.transport.blocked:
            outbox.flush()
            await outbox.transport.drained()
        elif not outbox.waiting:  # just flushed: a fair place to let others run, and to be cancelled
            await asyncio.sleep(0)

    def progress(self, message: str = "", *, done: float | None = None, total: float | None = None) -> None:
        if self._token is None or self._ended:
            return
        kind = "report" if self._begun else "begin"
        self._begun = True
        self._outbox.progress(self._token, ProgressValue(kind, message, done, total))

    def end(self) -> None:
        """The handler is done: nothing of this request may follow its answer, whoever kept this object."""
        if self._begun and not self._ended and self._token is not None:
            self._outbox.progress(self._token, ProgressValue("end"))
        self._ended = True
