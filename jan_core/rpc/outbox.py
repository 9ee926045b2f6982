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
from .messages import Id, ProgressParams, ProgressValue, StreamParams
from .transports import Transport

__all__ = ["Outbox", "WireCall"]

log = logging.getLogger(__name__)

FLUSH_AT = 64 << 10
"""Bytes gathered before they are handed to the transport at once: the size of a pipe."""

MAX_PENDING_EVENTS = 1024
"""Events kept for a client that does not read. Those with a key replace each other; of the rest, the oldest go."""


class Outbox:
    """Frames messages with `frame` and writes them to the transport, once per turn of the event loop."""

    def __init__(self, transport: Transport, frame: Callable[[bytes], bytes]) -> None:
        self._transport, self._frame = transport, frame
        self._loop = asyncio.get_running_loop()
        self._out: list[bytes] = []
        self._size = 0
        self._flush_due = False
        self._events: dict[Any, Event] = {}
        self._delivering: asyncio.Task[None] | None = None

    def send(self, message: bytes) -> None:
        """Send one message."""
        framed = self._frame(message)
        self._out.append(framed)
        self._size += len(framed)
        if self._size >= FLUSH_AT:
            self.flush()
        elif not self._flush_due:
            # Once per turn of the loop: what the tasks of this turn produce leaves in one write.
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand everything that waits to the transport."""
        self._flush_due = False
        if self._out:
            data = b"".join(self._out)
            self._out, self._size = [], 0
            self._transport.write(data)

    async def stream(self, id: Id, seq: int, item: Any) -> None:
        """Send one stream item; waits while the client is not reading."""
        self.send(messages.notification("$/stream", StreamParams(id, seq, item)))
        if self._transport.blocked:
            self.flush()
            await self._transport.drained()
        elif not self._out:  # just flushed: a fair place to let others run, and to be cancelled
            await asyncio.sleep(0)

    def progress(self, token: Id, value: ProgressValue) -> None:
        """Send a progress report; one that comes while the client is not reading is left out."""
        if value.kind == "report" and self._transport.blocked:
            return
        self.send(messages.notification("$/progress", ProgressParams(token, value)))

    def event(self, event: Event) -> None:
        """Send an event, or keep it until the client reads again."""
        if not self._transport.blocked and not self._events:
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
                await self._transport.drained()
                key = next(iter(self._events))
                self._send_event(self._events.pop(key))
        finally:
            self._delivering = None

    def _send_event(self, event: Event) -> None:
        try:
            self.send(messages.notification(event.name, event.data))
        except Exception as error:  # an event whose data is not data is its emitter's defect
            log.error("event %s of %s cannot be encoded", event.name, event.source, exc_info=error)


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
        else:
            seq, self._seq = self._seq, self._seq + 1
            await self._outbox.stream(self._id, seq, item)

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
