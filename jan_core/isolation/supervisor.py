"""Keeps the process of one generation up: connects to it, learns that it is over, and starts it again.

One crash costs the calls that were inside: each is answered with ExtensionCrashed. New ones wait for the next process,
which comes at once the first time and later each time after. Too many crashes in a row of minutes, and the extension
is quarantined like one whose hooks keep failing; enabling or reloading it is the way back, as it is there.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw

from ..dispatch import FAILURES_BEFORE_QUARANTINE
from ..errors import ExtensionCrashed, ExtensionUnavailable, Overloaded
from ..extension import Failure
from ..hookspecs import HookSpec
from ..loader import StageError
from ..methods import Call
from ..rpc import messages
from .connection import Connection, crashed
from .process import LAST_MOMENT, Child
from .shapes import MethodShape, State
from .starter import Starter

if TYPE_CHECKING:
    from ..live import LiveContext

__all__ = ["Supervisor"]

BACKOFF = (0.0, 0.5, 1.0, 2.0)
"""Seconds before the next process is started, by how many ended shortly before."""

CRASH_WINDOW = 300.0
"""Seconds after which a crash is forgotten."""

UP_LIMIT = 5.0
"""Seconds a call waits for a process that is being started again."""

ENDING_PATIENCE = 2
"""Looks that may find a child silent while it is being deactivated: there is nothing left to wait for."""


class Supervisor:
    """The process of one generation, whichever it is at the time."""

    def __init__(self, starter: Starter, child: Child) -> None:
        self._starter, self._child = starter, child
        self._last: Connection | None = None
        self._connection: Connection | None = None
        """The last one while it can be asked."""
        self._up: asyncio.Future[Connection]
        """The next process, while there is none."""
        self._crashes: deque[float] = deque(maxlen=FAILURES_BEFORE_QUARANTINE)
        self._ending = False

    # -- life -------------------------------------------------------------------------------------------------------

    async def begin(self, context: LiveContext) -> None:
        """Activate the extension in the process that is there. Raises Elsewhere or ExtensionCrashed."""
        self._context = context
        context.on_dispose(self._dispose)
        self._last = Connection(self._child, context)
        await self._activate(self._last)
        self._connected(self._last)
        context.tasks.start_soon(self._watch, self._last, name=f"process of {context.id}")

    def _connected(self, connection: Connection) -> None:
        """Ask it from now on, and nobody once it is over."""

        def over(why: asyncio.Future[str]) -> None:
            if self._connection is connection and not self._ending:
                self._up = asyncio.get_running_loop().create_future()
                self._up.add_done_callback(_retrieve)
                self._connection = None

        self._connection = self._last = connection
        connection.over.add_done_callback(over)

    async def finish(self) -> None:
        """Deactivate it. Raises Elsewhere."""
        self._ending = True
        connection = self._connection
        if connection is not None and not connection.over.done():
            connection.link.patience = ENDING_PATIENCE
            try:
                await connection.until("$/deactivate", {})
            finally:
                connection.child.end()

    def abandon(self) -> None:
        """End the process of a generation that nobody has any more. From any thread."""
        self._ending = True
        if self._last is None:
            self._child.close()
        else:
            self._child.end()

    async def _dispose(self) -> None:
        self._ending = True
        self._connection = None
        self._child.end()
        if self._last is not None:
            await self._last.close()

    async def _activate(self, connection: Connection) -> None:
        if not await connection.activate():
            raise crashed(self._context.id, (await self._autopsy(connection)).message)

    # -- what is asked of it ----------------------------------------------------------------------------------------

    async def call(self, method: MethodShape, params: Any, call: Call) -> Any:
        """Call one of its methods. Raises RpcError, ExtensionCrashed or ExtensionUnavailable."""
        link = (await self._current()).link
        if not method.takes_call:
            return await link.ask(method.name, params, caller=call.caller).whole()

        def report(message: str, done: float | None, total: float | None) -> None:
            call.progress(message, done=done, total=total)

        exchange = link.ask(method.name, params, caller=call.caller, items=True, progress=report)
        try:
            async for item in exchange:
                await call.send(item)
            return await exchange.answer()
        except asyncio.CancelledError:
            return await exchange.cancelled()
        except BaseException:
            await exchange.leave()
            raise

    async def hook(self, spec: HookSpec, arguments: dict[str, Any]) -> Any:
        """Run its implementation of a hook. Raises Elsewhere.

        A process that is down has nothing to say, but one who decides something is waited for. A crash costs the
        result alone: it is on the record already, as one of the process and not of the hook.
        """
        if self._connection is None and spec.mode == "broadcast":
            return None
        try:
            packed = Raw(messages.encode(arguments))
        except (TypeError, ValueError, OverflowError) as error:
            # Its caller's mistake, which must not count against the extension.
            self._context.log.warning("it is not asked %s: an argument is not plain data: %s", spec.name, error)
            return None
        try:
            return await (await self._current()).ask("$/hook", {"name": spec.name, "arguments": packed})
        except (ExtensionCrashed, Overloaded):  # too many calls inside: no failure of its own either
            return None

    async def export_state(self) -> Any:
        """What it hands over to the next generation, as plain data. Raises Elsewhere or ExtensionCrashed."""
        answer = await (await self._current()).ask("$/export", {})
        state = msgspec.convert(answer, State).state
        return None if state is None else msgspec.msgpack.decode(state)

    async def restore_state(self, state: Any) -> None:
        """Hand it what the generation before exported. Raises Elsewhere or ExtensionCrashed."""
        packed = State(msgspec.msgpack.encode(state))
        await (await self._current()).ask("$/restore", packed)

    async def _current(self) -> Connection:
        if self._connection is None and not self._ending:
            try:
                await asyncio.wait_for(asyncio.shield(self._up), UP_LIMIT)
            except TimeoutError:
                raise crashed(self._context.id, "its process is being started again") from None
        connection = self._connection
        if connection is None:
            raise crashed(self._context.id, "its process has ended")
        connection.tell_settings()
        return connection

    def tell_settings(self) -> None:
        """Tell the process its settings, if they are others than it knows."""
        if self._connection is not None:
            self._connection.tell_settings()

    # -- when it ends -----------------------------------------------------------------------------------------------

    async def _watch(self, connection: Connection | None) -> None:
        while connection is not None:
            failure = await self._autopsy(connection)
            crashes = 0 if self._ending else self._record(failure)  # first, so that who asks why finds it
            connection.link.fail(functools.partial(crashed, self._context.id, failure.message))
            await connection.close()
            connection = await self._again(failure, crashes) if not self._ending else None

    async def _autopsy(self, connection: Connection) -> Failure:
        """What a connection ended of, once it has, and where in the extension's code the process was then."""
        why, child = await connection.over, connection.child
        if why:
            child.abort()
        await asyncio.to_thread(child.join, LAST_MOMENT)
        if child.status is None:  # it would not, or it lives on without a channel
            child.end()
            await asyncio.to_thread(child.join, LAST_MOMENT)
        message = f"{why}; its process was ended" if why else f"its process {child.how()}"
        words = child.last_words()
        if words:
            self._context.log.error("%s", words)
        file, line = self._starter.place(words)
        return Failure("process", "ExtensionCrashed", message, file, line, time.time())

    def _record(self, failure: Failure) -> int:
        """Put a crash on the record; returns how many there were lately."""
        now = time.monotonic()
        self._crashes.append(now)
        crashes = sum(now - at < CRASH_WINDOW for at in self._crashes)
        self._context.log.error("%s", failure.message)
        self._context.report(failure, crashes)
        return crashes

    async def _again(self, failure: Failure, crashes: int) -> Connection | None:
        """Start it again until it runs; None when it failed too often for that."""
        up = self._up
        while crashes < FAILURES_BEFORE_QUARANTINE:
            await asyncio.sleep(BACKOFF[max(crashes, 1) - 1])
            try:
                connection = await self._restart()
            except Exception as error:  # whatever it is: somebody must go on watching
                failure = Failure.of("process", error)
                crashes = self._record(failure)
                continue
            self._context.log.warning("its process was started again")
            self._connected(connection)
            up.set_result(connection)
            return connection
        message = f"extension {self._context.id} is quarantined: {failure.message}"
        up.set_exception(ExtensionUnavailable(message, extension=self._context.id, state="quarantined"))
        return None

    async def _restart(self) -> Connection:
        import anyio.to_thread

        child = await anyio.to_thread.run_sync(self._start, abandon_on_cancel=True)
        connection = Connection(child, self._context)
        try:
            await self._activate(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    def _start(self) -> Child:
        def born(child: Child) -> None:
            self._child = child
            if self._ending:
                child.end()

        child = self._starter.start(born)
        if self._ending:  # nobody waits for it any more
            child.close()
            raise StageError(Failure("process", "Cancelled", "the extension is being ended"))
        return child


def _retrieve(future: asyncio.Future[Connection]) -> None:
    """Nobody may be waiting: a failure that is on the record need not be logged as lost."""
    if not future.cancelled():
        future.exception()
