"""Both conversations with one child: what the host asks of it, what it says by itself, and what it asks.

Made anew for each process. When it is over it says so, and that is all: what follows is `supervisor.py`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

import msgspec
from msgspec import Raw

from ..context import Context
from ..errors import ExtensionCrashed, RpcError
from ..extension import Failure
from ..rpc.peer import Peer
from ..rpc.transports import LoopTransport
from .link import Link
from .process import Child
from .relay import Relay
from .shapes import Activate, Failed, Line, Told, Values

if TYPE_CHECKING:
    from ..live import LiveContext

__all__ = ["Connection", "Elsewhere", "crashed"]

ASK_SETTLE = 1.0
"""Seconds a hook that was given up may take to end: others wait for its turn to be over."""

EXIT_GRACE = 0.2
"""Seconds to read what a process that has ended had written."""


class Elsewhere(Exception):
    """Something failed in the extension's own process; `failure` says what, and where."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def crashed(id: str, message: str) -> ExtensionCrashed:
    """What a call is answered whose process has gone."""
    return ExtensionCrashed(f"extension {id}: {message}", extension=id)


class Connection:
    """Both conversations with one child. `over` is set when they have come to their end: to why the host ended them, or
    to an empty text when the process did."""

    def __init__(self, child: Child, context: LiveContext) -> None:
        self.child, self._context = child, context
        self._settings: dict[str, Any] = {}
        """What the child was told last."""
        self._closed = False
        self._loop = loop = asyncio.get_running_loop()
        self.over: asyncio.Future[str] = loop.create_future()
        self.link = Link(child.requests.fileno(), self._heard, self._end)
        self._calls = LoopTransport(child.calls.fileno(), child.calls.fileno(), self._deaf)
        self._peer = Peer(Relay(cast(Context, context)), self._calls)
        self._peer.initialized, self._peer.client = True, context.id
        self._calls.start(self._peer.feed)
        self.link.feed(child.rest())

        def exited() -> None:  # in another thread, and perhaps after the loop
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(loop.call_later, EXIT_GRACE, self._end, "")

        child.on_exit(exited)

    async def activate(self) -> bool:
        """Begin the extension's life in there, as `until` does. Raises Elsewhere."""
        self._settings = self._values()
        return await self.until("$/activate", Activate(str(self._context.data_dir), self._settings))

    async def ask(self, name: str, params: Any) -> Any:
        """Ask something of the extension that is no method. Raises Elsewhere or ExtensionCrashed."""
        try:
            return await self.link.ask(name, params).whole(ASK_SETTLE)
        except RpcError as error:
            raise _unwrapped(error) from None

    async def until(self, name: str, params: Any) -> bool:
        """The same while nobody watches for the end; False when that came first. Raises Elsewhere."""
        asking = asyncio.ensure_future(self.link.ask(name, params, urgent=True).answer())
        try:
            await asyncio.wait([asking, self.over], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                asking.result()
            return asking.done()
        except RpcError as error:
            raise _unwrapped(error) from None
        finally:
            asking.cancel()

    def tell_settings(self) -> None:
        """Tell the child its settings, if they are others than it knows."""
        if (values := self._values()) != self._settings:
            self._settings = values
            # Asked and not notified: requests are served in their order, so whatever is asked next sees it.
            self.link.ask("$/settings", Values(values), urgent=True)

    async def close(self) -> None:
        """End the child, and what it was asking for. Any number of times."""
        if self._closed:
            return
        self._closed = True
        self.child.end()
        self.link.end("")
        self.link.fail(lambda: crashed(self._context.id, "its process was ended"))
        self._calls.stop_reading()
        try:
            await self._peer.aclose()
        finally:
            self._calls.close()
            self.child.close()

    def _values(self) -> dict[str, Any]:
        return msgspec.to_builtins(self._context.settings) or {}

    def _heard(self, name: str, params: Raw) -> None:
        if name == "$/event":
            told = msgspec.json.decode(params, type=Told)
            self._context.emit(told.name, told.data, key=told.key)
        elif name == "$/log":
            self._log(msgspec.json.decode(params, type=Line))
        elif name == "$/failed":
            self._context.report(msgspec.json.decode(params, type=Failed).failure, 0)

    def _log(self, line: Line) -> None:
        own = f"jan.{self._context.id}"
        logger = logging.getLogger(line.name if line.name.startswith(own + ".") else own)
        if logger.isEnabledFor(line.level):
            record = logger.makeRecord(logger.name, line.level, "", 0, line.message, (), None)
            record.created, record.exc_text = line.at, line.trace or None
            logger.handle(record)

    def _end(self, why: str) -> None:
        if not self.over.done():
            self.over.set_result(why)

    def _deaf(self) -> None:
        # At the end of a process both sockets close; only one that lives on has closed this one itself.
        self._loop.call_later(EXIT_GRACE, self.link.end, "it closed its channel")


def _unwrapped(error: RpcError) -> Exception:
    """The failure that a child answered with, as it would be raised here."""
    if error.type == "refused" and "failure" in error.data:
        return Elsewhere(msgspec.convert(error.data["failure"], Failure))
    return error
