"""One piece of work in a host that lives as long as the command: opening, Ctrl-C, closing.

The first interrupt cancels the work in an orderly way, so that what it began is stored or undone and workers end; a
second one, while that happens, ends the process at once, and SIGTERM does so by itself after a while: whoever sends it
has no second one to give, and what a thread waits for may never come.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import click

from .app import App
from .output import clean

if TYPE_CHECKING:
    from jan_core import Caller, Event

    from .progress import Progress

__all__ = ["Interrupts", "Session", "open_host_client", "run_session", "start_log"]

T = TypeVar("T")
PATIENCE = 15.0
"""Seconds that the work has to end in an orderly way after SIGTERM."""


class Interrupts:
    """What Ctrl-C (and SIGTERM) stops right now."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._targets: list[tuple[Callable[[], None], bool]] = []
        self._writing = False
        self.count = 0
        """How many came. Whoever carries on after one sets it back to 0."""
        self._clock: threading.Timer | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Handle the signals inside this block. Elsewhere than in the main thread Python gets none."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # What is ignored stays ignored: a shell starts background jobs so.
        heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            with self._woken():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            if self._clock is not None:
                self._clock.cancel()

    @contextmanager
    def _woken(self) -> Iterator[None]:
        """Wake the event loop at each signal. One that comes just before the loop begins to wait, or to another thread,
        would otherwise be noticed only when something else ends the wait."""
        if sys.platform == "win32":  # the event loop there sees to it
            yield
            return
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            self._loop.add_reader(ours, ours.recv, 4096)
            before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                self._loop.remove_reader(ours)

    @contextmanager
    def stopping(self, target: Callable[[], None], *, whole: bool = True) -> Iterator[None]:
        """Inside this block an interrupt calls `target` (on the event loop) and nothing else.

        `whole` False: it ends only a part of the command, so it hears Ctrl-C but not SIGTERM.
        """
        entry = (target, whole)
        self._targets.append(entry)
        try:
            yield
        finally:
            if entry in self._targets:
                self._targets.remove(entry)

    @contextmanager
    def while_writing(self) -> Iterator[None]:
        """Inside this block, which blocks the event loop, an interrupt raises KeyboardInterrupt at once."""
        self._writing = True
        try:
            yield
        finally:
            self._writing = False

    def ending(self, scope: anyio.CancelScope) -> AbstractContextManager[None]:
        """Inside this block an interrupt cancels the whole work; when it does not end by that, the process does."""

        def end() -> None:
            if scope.cancel_called and self.count > 1:
                os._exit(130)
            scope.cancel()

        return self.stopping(end)

    def closing(self) -> None:
        """The work is over and the host is being closed: of interrupts from here on the second ends the process."""
        self._targets.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if number == signal.SIGTERM and self._clock is None:
            self._clock = threading.Timer(PATIENCE, os._exit, (130,))
            self._clock.daemon = True
            self._clock.start()
        targets = [target for target, whole in self._targets if whole or number == signal.SIGINT]
        if targets:
            self._loop.call_soon_threadsafe(targets[-1])
            if self._writing:
                raise KeyboardInterrupt
        elif self.count > 1:
            os._exit(130)


@dataclass
class Session:
    """What a piece of work gets: the method table, and the person in front of it."""

    app: App
    caller: Caller
    interrupts: Interrupts

    async def call(self, method: str, params: Any = None) -> Any:
        """Call a method and show its progress on stderr. Raises RpcError."""
        with self.progress() as progress:
            return await self.caller.call(method, {} if params is None else params, progress=progress)

    def hearing(self, listener: Callable[[Event], None]) -> AbstractContextManager[None]:
        """Call `listener` with each event of the host inside this block; of one that tells none, with none."""
        notifications = getattr(self.caller, "notifications", None)
        return notifications(listener) if notifications is not None else nullcontext()

    async def pages(self, kind: str, params: dict[str, Any], limit: int | None = None) -> list[dict[str, Any]]:
        """All records of the paged listing `KIND.list`, up to `limit`. Raises RpcError."""
        records: list[dict[str, Any]] = []
        cursor = ""
        while limit is None or len(records) < limit:
            wanted = 200 if limit is None else min(200, limit - len(records))
            page = await self.call(f"{kind}.list", {**params, "limit": wanted, "cursor": cursor})
            records += page[kind]
            cursor = page.get("cursor", "")
            if not cursor:
                break
        return records

    @contextmanager
    def progress(self) -> Iterator[Progress]:
        """Progress of long work, on stderr, until the block ends."""
        from .progress import Progress

        progress = Progress()
        try:
            yield progress
        finally:
            progress.close()


def run_session(app: App, work: Callable[[Session], Awaitable[T]], *, activate: bool = False) -> T:
    """Open a host, do the work, close the host. Raises click.Abort when interrupted, else what the work raises.

    `activate`: start the extensions that start with the application first; otherwise only those start that are called.
    Whatever may reach the network needs it: they may have a word in that, offline mode among them.
    """
    return asyncio.run(_run(app, work, activate))


async def _run(app: App, work: Callable[[Session], Awaitable[T]], activate: bool) -> T:
    interrupts = Interrupts()
    outcome: list[T] = []
    failure: Exception | None = None
    # Two scopes: once the host is open, an interrupt must end the work, not the host's own orderly end.
    with interrupts.installed(), anyio.CancelScope() as opening, interrupts.ending(opening):
        async with app.opener(app, activate) as caller:
            with anyio.CancelScope() as working, interrupts.ending(working):
                try:
                    outcome.append(await work(Session(app, caller, interrupts)))
                except Exception as error:  # carried past the host's task group, which would wrap it in a group
                    failure = error
            interrupts.closing()
    if failure is not None:
        raise failure
    if not outcome:
        raise click.Abort
    return outcome[0]


@asynccontextmanager
async def open_host_client(app: App, activate: bool) -> AsyncIterator[Caller]:
    """The real host over the data folder, reached in memory. Its log goes to the folder, not to the terminal."""
    from ..runtime import open_host

    start_log(app)
    async with open_host(app.data_dir, safe_mode=app.safe_mode, activate=activate) as host:
        yield host.client(name="cli")


def start_log(app: App) -> None:
    """Log to the data folder; with -v also to stderr, one line a record, for tracebacks are not for the terminal."""
    from ..runtime import log_to

    log_to(app.data_dir, console=logging.CRITICAL + 1)
    if app.verbose:
        remarks = logging.StreamHandler()
        remarks.setFormatter(OneLine())
        logging.getLogger().addHandler(remarks)


class OneLine(logging.Formatter):
    """A record without its traceback, on one line."""

    def format(self, record: logging.LogRecord) -> str:
        return " ".join(clean(f"{record.name}: {record.getMessage()}").split())
