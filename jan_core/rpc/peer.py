"""Answers JSON-RPC 2.0 messages: what each is, whether it may come now, and who answers it. Knows no file descriptors.

The rule above all others: every request gets exactly one answer, whatever happens to it. Bytes come in through
`feed`, go out through the transport it is given. Requests of served methods in an open conversation are decoded in one
pass and run, many lines at once (`_take_lines`) or one message after the other (`_take`). Everything else is looked at
once more, member by member (`_slowly`). How requests run and end stands in `requests.py`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from contextlib import ExitStack
from typing import Any

from msgspec import UNSET, Raw, UnsetType

from ..errors import InvalidRequest, JanError, NotInitialized, Overloaded, ParseError, ShuttingDown
from ..events import Event
from ..invoke import Service, bind
from ..methods import Handler
from . import messages, reading
from .backlog import Backlog
from .batches import Batch
from .depth import MAX_DEPTH, depth_exceeds
from .framing import MAX_MESSAGE, Message, Splitter, TooLarge
from .messages import Id
from .outbox import Outbox, WireCall
from .reading import Unreadable
from .requests import Requests
from .routes import Route, Routes
from .transports import Transport

__all__ = ["MAX_IN_FLIGHT", "Peer"]

log = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1024
"""Requests of one peer at a time: more than any user interface has open, few enough to keep memory bounded."""

DRAIN_LIMIT = 25.0
"""Seconds `shutdown` waits for running requests before it cancels them: a long answer may end, a stuck one may not
stay."""

CLOSE_LIMIT = 0.7
"""Seconds the cancelled requests of a client that has gone may take to end."""

CONVERSATION = {"initialize", "shutdown"}
"""Methods that change what the conversation is; never run the short way."""


class Peer:
    """One client's conversation. `closed` is set when it is over: by `exit`, end of input, or a stream beyond
    repair."""

    def __init__(self, service: Service, transport: Transport) -> None:
        self._service, self._table = service, service.table
        self._transport = transport
        self._splitter = Splitter()
        self._outbox = Outbox(transport, self._splitter.frames)
        self._requests = Requests(service, self._outbox.send)
        self._batch: Batch | None = None
        self._backlog = Backlog(transport, self._take)
        self._stack = ExitStack()
        self._routes = self._no_routes = Routes({}, service.timings)
        self._version = -1
        """Of the table that `_routes` are of; -1: they are to be made anew."""
        self.client = "client"
        self.initialized = False
        self.shutting_down = False
        self.closed = asyncio.Event()

    # -- bytes in ---------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes from the client. Never raises for what they contain."""
        if not (self._splitter.whole_lines(data) and self._take_lines(data)):
            self._take(self._splitter.feed(data))

    def _take_lines(self, data: bytes) -> bool:
        """Handle lines that are all decoded at once: the shortest way. False, and nothing done, if it is not theirs."""
        requests, table, transport = self._requests, self._table, self._transport
        waiting, run_plain = requests.waiting, requests.run_plain
        if transport.full or self._backlog.messages or self._version != table.version:
            return False
        try:
            arrived = self._routes.decode_lines(data)
        except Exception:
            return False
        if len(arrived) != data.count(b"\n"):  # JSON over several lines is none here
            return False
        self._outbox.hold()
        try:
            for place, incoming in enumerate(arrived):
                route, id = incoming.route, incoming.id
                if (
                    (waiting and (id in waiting or len(waiting) >= MAX_IN_FLIGHT))
                    or transport.full
                    or self._version != table.version
                ):
                    self._take([*data.split(b"\n")[place:-1]])
                    break
                if route.plain:
                    run_plain(route, incoming.params, None, id, None)
                else:
                    self._run(route, id, incoming.params, None)
        finally:
            self._outbox.flush()
        return True

    def _take(self, arrived: list[Any]) -> None:
        """Handle messages, in order, each by itself."""
        self._outbox.hold()
        try:
            for message in arrived:
                if self.closed.is_set():
                    break
                if (self._transport.full or self._backlog.messages) and not self._cannot_wait(message):
                    self._backlog.add(message)
                else:
                    self._take_one(message)
        finally:
            self._outbox.flush()

    def _take_one(self, message: Any) -> None:
        if self._version != self._table.version:
            self._renew()
        try:
            incoming = self._routes.decode(message)
        except Exception:  # whatever it is, and if it is wrong: how
            return self._slowly(message)
        route, id, waiting = incoming.route, incoming.id, self._requests.waiting
        if (
            (waiting and (id in waiting or len(waiting) >= MAX_IN_FLIGHT))
            or (len(message) > 2 * MAX_DEPTH and depth_exceeds(message))
            or (route.loose and b'"progressToken"' in message)
        ):
            return self._slowly(message)
        return self._run(route, id, incoming.params, None)

    def _renew(self) -> None:
        """Follow the method table and the state of the conversation."""
        self._version = self._table.version
        self._routes, before = self._no_routes, self._routes
        if self.initialized and not self.shutting_down and not self.closed.is_set():
            try:
                self._routes = Routes(self._table, self._service.timings, without=CONVERSATION, before=before)
            except Exception:  # a type that does not go together with others: each is served all the same, slowly
                log.exception("the methods cannot be decoded in one pass")

    def _slowly(self, message: Message) -> None:
        try:
            if isinstance(message, bytes):
                self._look_at(message)
            elif isinstance(message, TooLarge):
                self._refuse(None, InvalidRequest(f"message larger than {MAX_MESSAGE >> 20} MiB", limit=MAX_MESSAGE))
            else:
                self._refuse(None, ParseError(str(message)))
                self._close()
        except Exception:  # a defect here must not cost the messages behind this one
            log.exception("a message could not be handled")

    def _look_at(self, data: bytes) -> None:
        if not data or data.isspace():
            return None
        try:
            members = reading.members(data)
        except Unreadable as why:
            return self._refuse(why.id, why.error)
        if members is None:
            return self._single(data)
        if len(members) > MAX_IN_FLIGHT:
            return self._refuse(None, InvalidRequest(f"more than {MAX_IN_FLIGHT} messages in a batch"))
        self._batch = batch = Batch(self._outbox.send)
        try:
            for member in members:
                self._single(member)
        finally:
            self._batch = None
        return batch.seal()

    def _single(self, data: bytes) -> None:
        try:
            envelope = reading.envelope(data)
        except Unreadable as why:
            return self._refuse(why.id, why.error)
        if envelope is None:
            return None
        assert isinstance(envelope.method, str)
        if isinstance(envelope.id, int | str):
            return self._requested(envelope.id, envelope.method, envelope.params)
        return self._notified(envelope.method, envelope.params)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _requested(self, id: Id, name: str, params: Raw | UnsetType) -> None:
        try:
            if id in self._requests.waiting:
                # Not through the running request's book-keeping: that one still owes its own answer.
                raise InvalidRequest(f"id {id!r} is in flight")
            self._check_state(name)
            self._check_room(name)
            token, raw = (None, None) if params is UNSET else messages.take_progress_token(params)
            method = self._service.find(name)
            bound = None if method is None else bind(method, raw)
        except JanError as error:
            return self._refuse(id, error)
        if method is None:
            return self._requests.resolve(name, raw, WireCall(self._outbox, self.client, id, token), id, self._batch)
        route = self._routes.of(method)
        if name == "shutdown":  # admitted: from here on, what follows it is refused
            self.shutting_down = True
            self._renew()
            route = self._routes.of(method)  # its own, not the table's
            route.handler = functools.partial(self._drained, method.handler)
        self._run(route, id, bound, token)
        if name == "initialize":
            self._initialized(bound)
        return None

    def _run(self, route: Route, id: Id | None, params: Any, token: Id | None) -> None:
        call = WireCall(self._outbox, self.client, id, token) if route.takes_call else None
        self._requests.run(route, params, call, id, self._batch)

    def _check_state(self, name: str) -> None:
        if name == "initialize":
            if self.initialized:
                raise InvalidRequest("initialize was answered already")
        elif not self.initialized:
            raise NotInitialized(f"{name} before initialize")
        elif self.shutting_down:  # a second `shutdown` too: two would wait for each other
            raise ShuttingDown("the host is shutting down")

    def _check_room(self, name: str) -> None:
        if len(self._requests.waiting) >= MAX_IN_FLIGHT and name != "shutdown":  # a client over the limit can still end
            raise Overloaded(f"more than {MAX_IN_FLIGHT} requests in flight", limit=MAX_IN_FLIGHT)

    def _initialized(self, params: Any) -> None:
        self.initialized = True
        self.client = params.client_info.name or "client"
        self._stack.enter_context(self._service.bus.subscribe(self._event))
        self._renew()

    def _event(self, event: Event) -> None:
        if event.name == "extensions.changed":  # the decoder must not keep a retired generation's types
            self._routes, self._version = self._no_routes, -1
        self._outbox.event(event)

    async def _drained(self, shutdown: Handler, params: Any) -> Any:
        await self._requests.drain(DRAIN_LIMIT)
        return await shutdown(params)

    def _notified(self, name: str, params: Raw | UnsetType) -> None:
        if name == "exit":
            return self._close()
        if not self.initialized or name in CONVERSATION:
            return None  # as the Language Server Protocol says: dropped
        raw = None if params is UNSET else params
        try:
            if name == "$/cancelRequest":
                if request := self._requests.waiting.get(messages.decode_cancel(raw or b"{}").id):
                    request.cancel()
            elif method := self._service.find(name):
                self._check_room(name)
                self._run(self._routes.of(method), None, bind(method, raw), None)
            else:
                log.debug("notification %s is not known; ignored", name)
        except Exception as error:
            log.info("notification %s ignored: %s", name, error)  # notifications are never answered

    def _cannot_wait(self, message: Message) -> bool:
        """Whether a message ends something, and so is heard also of a client that reads nothing."""
        waiting = self._requests.waiting
        return isinstance(message, bytes) and (reading.exits(message) or reading.cancels(message) in waiting)

    def _refuse(self, id: Id | None, error: JanError) -> None:
        """Answer what never became a request. Inside a batch the answer joins the batch's."""
        (self._outbox.send if self._batch is None else self._batch.refuse)(messages.failure(id, error.to_object()))

    # -- the end ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Hand everything that waits to the transport now, not at the end of this turn of the event loop."""
        self._outbox.flush()

    def _close(self) -> None:
        self.closed.set()
        self._routes = self._no_routes

    async def aclose(self) -> None:
        """End the conversation: running requests are cancelled and answered, and everything is flushed."""
        self._backlog.close()
        self.shutting_down = True  # what is in the backlog is refused, and answered
        for message in self._backlog.clear():
            self._slowly(message)
        self._close()
        self._stack.close()
        await self._requests.close(CLOSE_LIMIT)
        self._outbox.close()
