"""One call of one method: find it, check its params, run it, and put errors into wire form.

Both peers (`rpc/peer.py` over bytes, `rpc/direct.py` in memory) call through here; only running is the wire's own
(`rpc/requests.py`), where each call has a task. This layer does not know how the caller is reached.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import uuid
from collections.abc import Awaitable
from time import perf_counter
from typing import Any, Protocol

import msgspec

from .border import contained
from .errors import DeadlineExceeded, ErrorObject, InternalError, InvalidParams, JanError, ParseError
from .events import EventBus
from .methods import Call, Method, MethodTable
from .timing import Timings

__all__ = ["Service", "bind", "error_object", "invalid", "overdue", "run"]

log = logging.getLogger(__name__)
_PATH = re.compile(r" - at `(.+)`$")
EMPTY = msgspec.Raw(b"{}")


class Service(Protocol):
    """What a peer needs of a host."""

    bus: EventBus
    table: MethodTable
    """The methods being served right now: what a peer decodes in one pass."""
    timings: Timings
    """What the calls of methods took."""

    def find(self, name: str) -> Method | None:
        """The method, if it is being served right now; of the table, or another."""
        ...

    async def resolve(self, name: str) -> Method:
        """The method, activating the extension that owns it. Raises MethodNotFound or ExtensionUnavailable."""
        ...


def bind(method: Method, params: msgspec.Raw | None) -> Any:
    """Decode and check params from JSON; none at all count as `{}`. Raises InvalidParams or ParseError.

    Arrays (positional params) are refused with InvalidParams: every method takes named members.
    """
    try:
        return method.decode(EMPTY if params is None else params)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Raw members are skipped, not checked, in the envelope's pass: bad JSON inside params is only found here.
        raise ParseError(f"params are not JSON: {error}") from None


def invalid(error: msgspec.ValidationError) -> InvalidParams:
    """The error for params that do not fit, with the path of the bad field taken out of msgspec's message."""
    text = str(error)
    match = _PATH.search(text)
    return InvalidParams(text, path=match[1] if match else "$")


async def run(method: Method, params: Any, call: Call, timings: Timings) -> Any:
    """Run a handler, sync or async, within its deadline, in the caller's own task, which holds the lease.

    Raises DeadlineExceeded, or what the handler raises.
    """
    timing = timings.of(method.name, method.generation.number if method.generation else 0)
    timing.in_flight += 1
    began = perf_counter()
    try:
        result = method.handler(params, call) if method.takes_call else method.handler(params)
        if inspect.isawaitable(result):
            result = await (result if method.deadline is None else _in_time(method, result))
    except BaseException as error:
        inside = contained(method.name, error)
        late = isinstance(inside, DeadlineExceeded)
        timing.add(perf_counter() - began, not isinstance(inside, asyncio.CancelledError), late)
        if inside is error:
            raise
        raise inside from error
    else:
        timing.add(perf_counter() - began)
        return result
    finally:
        timing.in_flight -= 1


async def _in_time(method: Method, work: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(method.deadline) as limit:
            return await work
    except TimeoutError:
        if limit.expired():
            raise overdue(method) from None
        raise  # the handler's own


def overdue(method: Method) -> DeadlineExceeded:
    """The error of a call that passed its method's deadline."""
    return DeadlineExceeded(f"{method.name} did not end within {method.deadline:g} s", seconds=method.deadline)


def error_object(error: BaseException, context: str) -> ErrorObject:
    """The wire form of an exception: the one place where exceptions become answers.

    A `JanError` says what it says. Anything else is a defect: it is logged with a fresh `errorId`, and only that id
    goes out.
    """
    if isinstance(error, JanError):
        return error.to_object()
    error_id = uuid.uuid4().hex[:12]
    log.error("%s failed [errorId %s]", context, error_id, exc_info=error)
    return InternalError(f"internal error; see the log for {error_id}", errorId=error_id).to_object()
