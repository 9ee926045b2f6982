"""The asking end of a conversation between the host and a child: requests, and what comes back for each.

The answering end is an ordinary `rpc.peer.Peer`. Unlike a client of the host (`rpc/client.py`), this one does not trust
what it reads: anything that is no message, a stream past its window, a flood of events, or silence while calls wait has
a consequence here. It knows no processes: whoever owns it is told once that it is over, and why.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from ..context import Progress
from ..errors import ErrorObject, InvalidRequest, Overloaded, RpcError
from ..rpc import messages
from ..rpc.framing import MAX_MESSAGE, Splitter
from ..rpc.outbox import Outbox
from ..rpc.peer import MAX_IN_FLIGHT
from ..rpc.transports import READ_SIZE, LoopTransport
from .exchange import Exchange, Value

__all__ = ["Link"]

log = logging.getLogger(__name__)

PULSE = 1.0
"""Seconds between two looks at whether the other side still answers, while calls wait for it."""

PATIENCE = 10
"""Looks in a row that may find nothing: an event loop that is blocked for so long has lost its users."""

NOTICES_A_SECOND = 2_000.0
"""Events and log lines read from the other side: past that it is read more slowly, and queues, and drops, at home."""

LONGEST_BURST = 0.1
"""Seconds' worth of notices read ahead of that rate."""


RESERVED = 24
"""Of the requests that the other side takes at a time, those that calls may not use up: it must always hear of its
settings and of its end."""


class _Incoming(msgspec.Struct):
    id: int | None = None
    method: str = ""
    params: Raw = Raw(b"{}")
    result: Any = None
    error: ErrorObject | None = None


class _Item(msgspec.Struct):
    id: int
    delta: Any


class _Report(msgspec.Struct):
    token: int
    value: Value


_decode = msgspec.json.Decoder(_Incoming).decode
_decode_item = msgspec.json.Decoder(_Item).decode
_decode_report = msgspec.json.Decoder(_Report).decode


class Link:
    """Requests over one socket. `heard(name, params)` gets every notification that belongs to no request; `over(why)`
    is called once, with an empty text for a plain end of the stream; `watched`: silence ends it, too."""

    def __init__(
        self,
        descriptor: int,
        heard: Callable[[str, Raw], None],
        over: Callable[[str], None],
        *,
        watched: bool = True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor, self._heard, self._over, self._watched = descriptor, heard, over, watched
        self._transport = LoopTransport(descriptor, descriptor, lambda: self.end(""))
        self._splitter = Splitter()
        self._outbox = Outbox(self._transport, self._splitter.frames)
        self._ids = itertools.count(1)
        self._pending: dict[int, Exchange] = {}
        self._pulse: asyncio.TimerHandle | None = None
        self._alive = True
        self._missed = 0
        self._notices = 0.0
        """When the notices that were read so far are paid for, on the loop's clock."""
        self._resuming: asyncio.TimerHandle | None = None
        self._gone: Callable[[], BaseException] | None = None
        self.ended = False
        self.patience = PATIENCE
        # Read here and not by the transport: at a pace of our own.
        self._loop.add_reader(descriptor, self._readable)

    # -- out --------------------------------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        params: Any,
        *,
        caller: str = "",
        items: bool = False,
        progress: Progress | None = None,
        urgent: bool = False,
    ) -> Exchange:
        """Send a request; `params` are plain data, or a Struct; an `urgent` one may use the reserve.

        Raises Overloaded, InvalidRequest for one that is too large, or what it is when params cannot be encoded.
        """
        id = next(self._ids)
        exchange = Exchange(self, id, items=items, progress=progress)
        if self.ended:
            if self._gone is None:
                self._pending[id] = exchange  # it gets the same answer as those who wait
            else:
                exchange.finish(None, self._gone())
            return exchange
        limit = MAX_IN_FLIGHT if urgent else MAX_IN_FLIGHT - RESERVED
        if len(self._pending) >= limit:
            raise Overloaded(f"more than {limit} requests in flight", limit=limit)
        asked: dict[str, Any] = {"key": id, "caller": caller, "items": items, "params": params}
        if progress is not None:
            asked["progressToken"] = id
        message = messages.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": asked})
        if len(message) > MAX_MESSAGE:
            # Refused here: over there nobody could say whose it was, and that would cost everybody's calls.
            raise InvalidRequest(f"message larger than {MAX_MESSAGE >> 20} MiB", limit=MAX_MESSAGE)
        self._outbox.send(message)
        self._pending[id] = exchange
        if self._pulse is None and self._watched:
            self._alive, self._missed = True, 0
            self._pulse = self._loop.call_later(PULSE, self._look)
        return exchange

    def notify(self, method: str, params: Any) -> None:
        """Send a notification."""
        if not self.ended:
            self._outbox.send(messages.notification(method, params))

    def forget(self, id: int) -> None:
        """Nobody waits for the answer any more."""
        self._pending.pop(id, None)

    # -- in ---------------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes: those that were read before this link was made, and what comes then."""
        for message in self._splitter.feed(data):
            if not isinstance(message, bytes):
                self.end("it sent a message that is too large")
            elif message:
                self._message(message)

    def _readable(self) -> None:
        try:
            data = os.read(self._descriptor, READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            data = b""
        if not data:
            return self.end("")
        self._alive = True
        self.feed(data)
        ahead = self._notices - self._loop.time()
        if ahead > LONGEST_BURST and not self.ended:
            self._loop.remove_reader(self._descriptor)
            self._resuming = self._loop.call_later(ahead, self._resume)
        return None

    def _resume(self) -> None:
        self._resuming = None
        self._alive = True
        self._loop.add_reader(self._descriptor, self._readable)

    def _message(self, data: bytes) -> None:
        if self.ended:
            return
        try:
            self._one(_decode(data))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.end("something in it wrote to its channel what is no message")
        except Exception:  # of whoever is told: it must not cost the messages behind this one
            log.exception("a message could not be handled")

    def _one(self, message: _Incoming) -> None:
        if message.method == "$/stream":
            item = _decode_item(message.params)
            if (exchange := self._pending.get(item.id)) is not None:
                exchange.item(item.delta)
        elif message.method == "$/progress":
            report = _decode_report(message.params)
            if (exchange := self._pending.get(report.token)) is not None:
                exchange.report(report.value)
        elif message.method:
            self._notices = max(self._notices, self._loop.time()) + 1 / NOTICES_A_SECOND
            self._heard(message.method, message.params)
        elif message.id is None:
            # Only what was never a request is answered so: a foreign write damaged the way there.
            self.end("something in it wrote to its channel what is no message")
        elif (exchange := self._pending.pop(message.id, None)) is not None:
            exchange.finish(message.result, RpcError(message.error) if message.error is not None else None)

    def _look(self) -> None:
        """Count the looks, not the seconds: this process may have been asleep or busy itself."""
        self._pulse = None
        if self.ended or not self._pending:
            return None
        self._missed = 0 if self._alive else self._missed + 1
        self._alive = False
        if self._missed >= self.patience:
            return self.end(f"it did not answer for {self._missed * PULSE:g} s: its event loop is blocked")
        # Its answer belongs to nothing and is dropped, but it is heard.
        self._outbox.send(messages.encode({"jsonrpc": "2.0", "id": 0, "method": "$/ping"}))
        self._pulse = self._loop.call_later(PULSE, self._look)
        return None

    # -- the end ----------------------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Read and write no more. Those who wait go on waiting until `fail`. Any number of times."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._descriptor)
        for timer in (self._pulse, self._resuming):
            if timer is not None:
                timer.cancel()
        self._outbox.close()
        self._transport.close()
        self._over(why)

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Give everybody who waits, and whoever still comes, an answer: a fresh `error` each."""
        self._gone = self._gone or error
        pending, self._pending = self._pending, {}
        for exchange in pending.values():
            exchange.finish(None, error())
