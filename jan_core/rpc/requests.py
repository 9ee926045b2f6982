"""Requests under way: from the moment their params are known until their one answer is given.

Plain handlers are answered where they stand. Those that are `async` run as tasks, started at once (`start.py`): only
one that has to wait is kept in the register, with a lease on its generation and its deadline running. Knows neither
messages nor bytes; what came in, and whether it may, is the peer's business.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from ..border import contained
from ..errors import Cancelled
from ..invoke import Service, bind, error_object, overdue
from . import messages
from .deadlines import Deadlines
from .framing import MAX_MESSAGE
from .messages import Id, Success, encode
from .outbox import WireCall
from .routes import Route
from .start import starter

if TYPE_CHECKING:
    from ..extension import Lease
    from .batches import Batch

__all__ = ["Request", "Requests"]

log = logging.getLogger(__name__)

PASSING = (KeyboardInterrupt, GeneratorExit)
"""What is not a handler's: an interrupt ends the process, the other a coroutine that nobody will run any more. Whatever
else a handler ends with is answered; native code raises errors of its own that are no `Exception`."""


class Requests:
    """The requests of one peer. `send` takes their answers."""

    def __init__(self, service: Service, send: Callable[[bytes], None]) -> None:
        self.service, self._send = service, send
        self.loop = asyncio.get_running_loop()
        self.start = starter(self.loop)
        self.deadlines = Deadlines(self.loop)
        self.waiting: dict[Id | Request, Request] = {}
        """Those that have begun and wait for something, by id; notifications by themselves."""

    def run(self, route: Route, params: Any, call: WireCall | None, id: Id | None, batch: Batch | None) -> None:
        """Run a handler and see to its answer. `id` None: a notification; it runs the same way and is not answered."""
        if batch is not None and id is not None:
            batch.expect()
        if route.is_async:
            request = Request(self, call, id, batch, route)
            return request.begin(request.perform(route, params), route.method.name)
        return self.run_plain(route, params, call, id, batch)

    def run_plain(self, route: Route, params: Any, call: WireCall | None, id: Id | None, batch: Batch | None) -> None:
        """Run a handler that is a plain function, and answer."""
        timing = route.timing or route.timed()
        began = perf_counter()
        try:
            result = route.handler(params) if call is None else route.handler(params, call)
            text = encode(Success(id, result))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            timing.add(perf_counter() - began, True)
            text = failed(id, error, route.method.name)
        else:
            timing.add(perf_counter() - began)
        if call is not None:
            call.end()
        if batch is None and id is not None and len(text) <= MAX_MESSAGE:  # as `answer` would, without asking it
            self._send(text)
        else:
            self.answer(id, batch, text)

    def resolve(self, name: str, params: Raw | None, call: WireCall, id: Id, batch: Batch | None) -> None:
        """Run a method that is not served yet: the extension that owns it is activated first."""
        if batch is not None:
            batch.expect()
        request = Request(self, call, id, batch, None)
        request.begin(request.resolve(name, params), name)

    def answer(self, id: Id | None, batch: Batch | None, text: bytes) -> None:
        """Send the one answer of request `id`."""
        if id is None:
            return
        if len(text) > MAX_MESSAGE:
            defect = ValueError(f"an answer of {len(text)} bytes, more than a message may have")
            text = failed(id, defect, f"the answer to {id!r}")
        if batch is None:
            self._send(text)
        else:
            batch.answer(text)

    async def drain(self, limit: float) -> None:
        """Wait until what runs now has ended, but for the caller; what has not after `limit` seconds is cancelled."""
        me = asyncio.current_task()
        others = [r.task for r in self.waiting.values() if r.task is not None and r.task is not me]
        if not others:
            return
        _, late = await asyncio.wait(others, timeout=limit)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1.0)

    async def close(self, limit: float) -> None:
        """Cancel everything and see to it that all of it is answered, after `limit` seconds if need be."""
        tasks = [request.task for request in self.waiting.values() if request.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=limit)
            await asyncio.sleep(0)  # those that never began are answered by callbacks
        for request in list(self.waiting.values()):
            request.end(failed(request.id, Cancelled("the conversation ended"), "a stuck request"))


class Request:
    """One request whose handler is `async`."""

    # Not slots, but defaults of the class: most requests never need them.
    task: asyncio.Task[None] | None = None
    """Only of one that has to wait."""
    _lease: Lease | None = None
    _begun = _expired = _answered = False

    def __init__(
        self, requests: Requests, call: WireCall | None, id: Id | None, batch: Batch | None, route: Route | None
    ) -> None:
        self._requests, self._call, self.id, self._batch, self._route = requests, call, id, batch, route

    def begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start `work`, one of the two below, as this request's task, and keep it if it waits."""
        task = self._requests.start(work, name)
        if task.done():
            return
        self.task = task
        self._requests.waiting[self.id if self.id is not None else self] = self
        if self._route is not None:
            self._hold(task, self._route)
        if not self._begun:
            # A task that is cancelled before its first step runs nothing of its body, and would never answer.
            task.add_done_callback(self._never_begun)

    async def perform(self, route: Route, params: Any) -> None:
        """Run the handler, and answer."""
        self._begun = True
        timing, call = route.timing or route.timed(), self._call
        timing.in_flight += 1
        began = perf_counter()
        try:
            result = await (route.handler(params) if call is None else route.handler(params, call))
            text = encode(Success(self.id, result))
        except PASSING:
            raise
        except BaseException as error:
            timing.add(perf_counter() - began, self._expired or not isinstance(error, CancelledError), self._expired)
            text = failed(self.id, self._reason(error), route.method.name)
        else:
            timing.add(perf_counter() - began)
        timing.in_flight -= 1
        self.end(text)

    async def resolve(self, name: str, params: Raw | None) -> None:
        """Have the method's extension activated, then run it."""
        self._begun = True
        try:
            method = await self._requests.service.resolve(name)
            bound = bind(method, params)
        except PASSING:
            raise
        except BaseException as error:
            return self.end(failed(self.id, self._reason(error), name))
        self._route = route = Route(method, self._requests.service.timings)
        if self.task is not None:  # else it has not waited so far, and `begin` will see to it
            self._hold(self.task, route)
        call = self._call if method.takes_call else None
        if route.is_async:
            self._call = call
            return await self.perform(route, bound)
        self._over()
        if not self._answered:
            self._answered = True
            self._requests.run_plain(route, bound, call, self.id, self._batch)
        return None

    def cancel(self) -> None:
        """End it early; it is answered when its handler has ended."""
        if self.task is not None:
            self.task.cancel()

    def end(self, text: bytes) -> None:
        """Give the answer, unless it was given already: its id may be another request's by then."""
        if self._answered:
            return
        self._answered = True
        if self._call is not None:
            self._call.end()
        self._over()
        self._requests.answer(self.id, self._batch, text)

    def _hold(self, task: asyncio.Task[None], route: Route) -> None:
        generation, deadline = route.method.generation, route.method.deadline
        if generation is not None:
            self._lease = generation.lease(task, self._left)
        if deadline is not None:
            self._requests.deadlines.add(self._expire, deadline)

    def _over(self) -> None:
        if self.task is not None:
            self._requests.waiting.pop(self.id if self.id is not None else self, None)
        if self._lease is not None:
            self._lease.release()
        if self._route is not None and self._route.method.deadline is not None:
            self._requests.deadlines.remove(self._expire)

    def _left(self) -> None:
        """The generation's end waits no longer for a handler that ignores being cancelled; nor does whoever asked."""
        if self._lease is not None and self.task is not None:
            self.end(failed(self.id, self._lease.reason(), self.task.get_name()))

    def _expire(self) -> None:
        self._expired = True
        self.cancel()

    def _never_begun(self, task: asyncio.Task[None]) -> None:
        if not self._begun:
            self.end(failed(self.id, self._reason(CancelledError()), task.get_name()))

    def _reason(self, error: BaseException) -> BaseException:
        """What a request says that ended with `error`: a cancellation has somebody who wanted it."""
        if isinstance(error, CancelledError) and self.task is not None and self.task.cancelling():
            if self._lease is not None and self._lease.revoked:
                return self._lease.reason()
            if self._expired and self._route is not None:
                return overdue(self._route.method)
            return Cancelled("the request was cancelled")
        return error


def failed(id: Id | None, error: BaseException, what: str) -> bytes:
    """The answer of a request that ended with `error`; a notification's errors are only logged."""
    try:
        shown = error_object(contained(what, error), what)
        text = messages.failure(id, shown)
    except Exception as defect:  # an error whose data is not data, or its text no Unicode
        shown = error_object(defect, what)
        text = messages.failure(id, shown)
    if id is None:
        log.info("notification %s failed: %s", what, shown.message)
    return text
