"""Answers JSON-RPC 2.0 messages: correlation, ordering, cancellation, streams, limits. Knows no file descriptors.

The rule above all others: every request gets exactly one answer, whatever happens to it. Bytes come in through
`feed`, go out through the transport it is given. Handlers that are `async` run as tasks of this peer, ended with it;
plain ones run inline. What a method is and how it is run stands in `invoke.py`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import Coroutine
from contextlib import ExitStack, nullcontext
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..border import border
from ..errors import (
    Cancelled,
    InvalidRequest,
    JanError,
    NotInitialized,
    Overloaded,
    ParseError,
    ShuttingDown,
)
from ..extension import Generation, Lease
from ..invoke import Service, bind, error_object, run
from ..methods import Method
from . import messages
from .framing import MAX_DEPTH, MAX_MESSAGE, FramingError, Splitter, depth_exceeds
from .messages import CancelParams, Id
from .outbox import Outbox, WireCall
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


class Peer:
    """One client's conversation. `closed` is set when it is over: by `exit`, end of input, or a stream beyond
    repair."""

    def __init__(self, service: Service, transport: Transport) -> None:
        self._service = service
        self._splitter = Splitter(self._message, self._too_large)
        self._outbox = Outbox(transport, self._splitter.frame)
        self._running: dict[Id, asyncio.Task[Any]] = {}
        self._notices: set[asyncio.Task[Any]] = set()
        self._batch: _Batch | None = None
        self._loop = asyncio.get_running_loop()
        self._stack = ExitStack()
        self.client = "client"
        self.initialized = False
        self.shutting_down = False
        self.closed = asyncio.Event()

    # -- bytes in ---------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take bytes from the client. Never raises for what they contain."""
        try:
            self._splitter.feed(data)
        except FramingError as error:
            self._refuse(None, ParseError(str(error)))
            self._outbox.flush()
            self.closed.set()

    def _too_large(self) -> None:
        self._refuse(None, InvalidRequest(f"message larger than {MAX_MESSAGE >> 20} MiB", limit=MAX_MESSAGE))

    def _message(self, data: bytes) -> None:
        if self.closed.is_set():
            return
        try:
            if depth_exceeds(data):
                self._refuse(messages.decode_id(data), InvalidRequest(f"nested deeper than {MAX_DEPTH}"))
            elif data.lstrip()[:1] == b"[":
                self._batch_message(data)
            else:
                self._single(data)
        except Exception:  # a defect here must not cost the messages behind this one
            log.exception("a message could not be handled")

    def _single(self, data: bytes) -> None:
        try:
            envelope = messages.decode_envelope(data)
        except msgspec.ValidationError as error:
            return self._refuse(messages.decode_id(data), InvalidRequest(str(error)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # msgspec reports bad UTF-8 as UnicodeDecodeError, not as DecodeError.
            return self._refuse(None, ParseError(f"not JSON: {error}"))
        id, method = envelope.id, envelope.method
        known = None if id is UNSET else id
        if envelope.jsonrpc != "2.0":
            return self._refuse(known, InvalidRequest('jsonrpc must be "2.0"'))
        if method is UNSET:
            # A response is dropped: this side sends no requests, so there is nothing it could belong to.
            if envelope.result is UNSET and envelope.error is UNSET:
                self._refuse(known, InvalidRequest("no method"))
            return None
        if id is None:
            return self._refuse(None, InvalidRequest("id must not be null"))
        if id is UNSET:
            return self._notified(method, envelope.params)
        return self._requested(id, method, envelope.params)

    def _batch_message(self, data: bytes) -> None:
        try:
            members = msgspec.json.decode(data, type=list[Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._refuse(None, ParseError(f"not JSON: {error}"))
        if not members:
            return self._refuse(None, InvalidRequest("empty batch"))
        if len(members) > MAX_IN_FLIGHT:
            return self._refuse(None, InvalidRequest(f"more than {MAX_IN_FLIGHT} messages in a batch"))
        self._batch = batch = _Batch()
        try:
            for member in members:
                self._single(bytes(member))
        finally:
            self._batch = None
        batch.sealed = True
        return self._finish_batch(batch)

    # -- requests ---------------------------------------------------------------------------------------------------

    def _requested(self, id: Id, name: str, params: Raw | UnsetType) -> None:
        batch = self._batch
        if batch is not None:
            batch.open += 1
        try:
            if id in self._running:
                # Not through the running request's book-keeping: that one still owes its own answer.
                raise InvalidRequest(f"id {id!r} is in flight")
            self._check_state(name)
            self._check_room(name)
            token, raw = (None, None) if params is UNSET else messages.take_progress_token(params)
            method = self._service.find(name)
            call = WireCall(self._outbox, self.client, id, token)
            if method is None:
                return self._spawn(id, batch, self._resolve_and_run(name, raw, call), None)
            bound = bind(method, raw)
            if name == "shutdown":  # admitted: from here on, what follows it is refused
                self.shutting_down = True
            if _is_async(method):
                return self._spawn(id, batch, self._run(method, bound, call), method.generation)
            try:
                with border(name):
                    result = method.handler(bound, call) if method.takes_call else method.handler(bound)
            finally:
                call.end()
            self._completed(name, bound)
            self._answer(id, batch, result=result)
        except Exception as error:
            self._answer(id, batch, error=error)

    def _check_state(self, name: str) -> None:
        if name == "initialize":
            if self.initialized:
                raise InvalidRequest("initialize was answered already")
        elif not self.initialized:
            raise NotInitialized(f"{name} before initialize")
        elif self.shutting_down:  # a second `shutdown` too: two would wait for each other
            raise ShuttingDown("the host is shutting down")

    def _check_room(self, name: str) -> None:
        # A client that is over the limit can still end.
        if len(self._running) + len(self._notices) >= MAX_IN_FLIGHT and name != "shutdown":
            raise Overloaded(f"more than {MAX_IN_FLIGHT} requests in flight", limit=MAX_IN_FLIGHT)

    def _completed(self, name: str, params: Any) -> None:
        if name == "initialize":
            self.initialized = True
            self.client = params.client_info.name or "client"
            self._stack.enter_context(self._service.bus.subscribe(self._outbox.event))

    async def _resolve_and_run(self, name: str, params: Raw | None, call: WireCall) -> Any:
        method = await self._service.resolve(name)
        with method.generation.lease() if method.generation else nullcontext():
            return await self._run(method, bind(method, params), call)

    async def _run(self, method: Method, params: Any, call: WireCall) -> Any:
        if method.name == "shutdown":
            await self._drain_requests()
        try:
            result = await run(method, params, call)
        finally:
            call.end()
        self._completed(method.name, params)
        return result

    def _spawn(
        self, id: Id, batch: _Batch | None, work: Coroutine[Any, Any, Any], generation: Generation | None
    ) -> None:
        task = self._loop.create_task(work)
        self._running[id] = task
        # The lease is taken now, not when the task begins: a reload may come between the two.
        lease = generation.lease(task) if generation else None
        # The answer is given by the callback, not by the task: a task that is cancelled before its first step runs
        # nothing of its body, and would otherwise owe its answer for ever.
        task.add_done_callback(functools.partial(self._finished, id, batch, lease))

    def _finished(self, id: Id, batch: _Batch | None, lease: Lease | None, task: asyncio.Task[Any]) -> None:
        if lease is not None:
            lease.release()
        if self._running.get(id) is not task:
            return  # answered already, when the conversation ended
        del self._running[id]
        if task.cancelled():
            cancelled = Cancelled("the request was cancelled")
            self._answer(id, batch, error=lease.reason() if lease is not None and lease.revoked else cancelled)
        elif (error := task.exception()) is not None:
            self._answer(id, batch, error=error)
        else:
            self._answer(id, batch, result=task.result())

    def _notified(self, name: str, params: Raw | UnsetType) -> None:
        if name == "exit":
            self.closed.set()
            return
        if not self.initialized or name in ("initialize", "shutdown"):
            return  # as the Language Server Protocol says: dropped
        try:
            if name == "$/cancelRequest":
                wanted = msgspec.json.decode(params if params is not UNSET else b"{}", type=CancelParams)
                if task := self._running.get(wanted.id):
                    task.cancel()
                return
            method = self._service.find(name)
            if method is None:
                log.debug("notification %s is not known; ignored", name)
                return
            self._check_room(name)
            bound = bind(method, None if params is UNSET else params)
            task = self._loop.create_task(self._run(method, bound, WireCall(self._outbox, self.client, None, None)))
            lease = method.generation.lease(task) if method.generation else None
            self._notices.add(task)
            task.add_done_callback(functools.partial(self._noticed, name, lease))
        except Exception as error:
            log.info("notification %s ignored: %s", name, error)  # notifications are never answered

    def _noticed(self, name: str, lease: Lease | None, task: asyncio.Task[Any]) -> None:
        if lease is not None:
            lease.release()
        self._notices.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.warning("notification %s failed: %s", name, error)

    async def _drain_requests(self) -> None:
        me = asyncio.current_task()
        others = [task for task in self._running.values() if task is not me]
        if not others:
            return
        _, late = await asyncio.wait(others, timeout=DRAIN_LIMIT)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    # -- answers ----------------------------------------------------------------------------------------------------

    def _refuse(self, id: Id | None, error: JanError) -> None:
        """Answer what never became a request. Inside a batch the answer joins the batch's."""
        text = messages.failure(id, error.to_object())
        if self._batch is None:
            self._outbox.send(text)
        else:
            self._batch.answers.append(text)

    def _answer(self, id: Id, batch: _Batch | None, *, result: Any = None, error: BaseException | None = None) -> None:
        """The one answer of request `id`."""
        try:
            if error is None:
                text = messages.success(id, result)
            else:
                text = messages.failure(id, error_object(error, f"request {id!r}"))
            if len(text) > MAX_MESSAGE:
                raise ValueError(f"an answer of {len(text)} bytes, more than a message may have")
        except (
            Exception
        ) as defect:  # a result that is not data, or too large: the handler's defect, and still an answer
            text = messages.failure(id, error_object(defect, f"encoding the answer to {id!r}"))
        if batch is None:
            self._outbox.send(text)
        else:
            batch.open -= 1
            batch.answers.append(text)
            self._finish_batch(batch)

    def _finish_batch(self, batch: _Batch) -> None:
        if batch.sealed and not batch.open and batch.answers:
            self._outbox.send(b"[" + b",".join(batch.answers) + b"]")
            batch.answers = []

    def flush(self) -> None:
        """Hand everything that waits to the transport now, not at the end of this turn of the event loop."""
        self._outbox.flush()

    # -- the end ----------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """End the conversation: running requests are cancelled and answered, and everything is flushed."""
        self.closed.set()
        self._stack.close()
        tasks = [*self._running.values(), *self._notices]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_LIMIT)
            await asyncio.sleep(0)  # the answers are given by callbacks of these tasks
        for id in list(self._running):
            # It would not be cancelled, and owes its answer all the same.
            del self._running[id]
            self._answer(id, None, error=Cancelled("the conversation ended"))
        self._outbox.close()


class _Batch:
    """Answers of a batch are sent as one array, when the last request of it is answered."""

    __slots__ = ("answers", "open", "sealed")

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.open = 0
        self.sealed = False


def _is_async(method: Method) -> bool:
    return inspect.iscoroutinefunction(method.handler)
