"""What runs in the child: one extension, staged, activated, called and deactivated by the code that does so in a host.

`loader.stage` imports it, `live.live` is its life, and an ordinary `rpc.peer.Peer` serves its methods to the host. What
it reaches outwards through is `house.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import logging
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import msgspec
from msgspec import Struct

from ..errors import JanError, MethodNotFound
from ..extension import Failure, Generation
from ..hookspecs import hookspecs
from ..loader import PackageSource, StageError, stage
from ..methods import Empty, Method, MethodTable, method, methods_of
from ..package import Snapshot
from ..rpc.peer import Peer
from ..rpc.transports import READ_SIZE, LoopTransport
from ..timing import Timings
from .describe import describe
from .house import ChildHouse, Lines, Mirror
from .shapes import Activate, Description, Failed, Hello, HookCall, State, Values, unpack
from .windows import Windows

__all__ = ["main"]

LEAVE_LIMIT = 2.0
"""Seconds for the extension's own end once the host has gone, where the kernel has not ended it already."""

DRAIN_LIMIT = 0.5
"""Seconds for calls that are inside when the host says the end: it has drained its own side before."""


class Refused(JanError):
    """What was asked of the extension failed; `failure` is the record of it. The host takes it out again."""

    code, type = -32000, "refused"

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message, failure=msgspec.to_builtins(failure))


class _Client(Struct):
    name: str


class _Begin(Struct, rename="camel"):
    client_info: _Client


class _Opening(Struct):
    class _Params(Struct):
        hello: Hello

    params: _Params


class _OnDisk(PackageSource):
    """A package that is imported from the disk under its ordinary name: this process has no other generation of it."""

    def load(self, number: int, snapshot: Snapshot | None) -> tuple[object, Snapshot | None]:
        sys.path.insert(0, str(self.root.parent))  # where a project's folder is not installed
        # Quick edits of equal length would find the bytecode of the one before: its key is the time in whole seconds.
        sys.dont_write_bytecode = self.live
        self.live = False
        return super().load(1, None)


def main(*descriptors: str) -> NoReturn:
    """Serve the host over the descriptors it handed down until it has gone: the numbers of the sockets for requests
    and for calls, of the lifeline, and of the pipe for last words."""
    requests, calls, lifeline, words = map(int, descriptors)
    for descriptor in (requests, calls, lifeline, words):
        os.set_inheritable(descriptor, False)
    signal.signal(signal.SIGINT, lambda *_: None)  # not ignored: that is passed on to whatever it starts
    faulthandler.enable(words)  # the host reads there on which line a segmentation fault or a hang was
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    _die_with(lifeline)
    threading.Thread(target=_watch, args=(requests, os.getppid()), name="departure", daemon=True).start()
    opening = _first_line(requests)
    hello = msgspec.json.decode(opening, type=_Opening).params.hello
    lines = Lines(hello.id)
    logging.getLogger().addHandler(lines)
    logging.getLogger().setLevel(hello.level)
    try:
        # Before the loop runs, as in a host's worker thread: code that is being imported may run one of its own.
        snapshot = unpack(hello.snapshot) if hello.snapshot else None
        kind = PackageSource if snapshot is not None else _OnDisk
        staged: Generation | Failure = stage(kind.from_recipe(hello.source), hello.manifest, hello.number, snapshot)
    except StageError as error:
        staged = error.failure
    try:
        # Without the end of `asyncio.run`, which waits for threads and tasks that may never end.
        asyncio.Runner().run(_serve(requests, calls, opening, lines, staged))
    except BaseException:  # a task or a callback of the extension called sys.exit, or stopped the loop
        _leave(1, traceback.format_exc())
    _leave(0)


async def _serve(requests: int, calls: int, opening: bytes, lines: Lines, staged: Generation | Failure) -> None:
    def damaged(why: str) -> None:
        why = f"the channel to the host is damaged: {why}\n"
        _leave(1, why)  # what was lost on it may be somebody's answer: only a new process can mend that

    def failed(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if isinstance(context.get("exception"), MemoryError):
            _leave(1)  # it may have been a message that there was no room for, and nobody would answer it
        loop.default_exception_handler(context)

    asyncio.get_running_loop().set_exception_handler(failed)
    house = ChildHouse(calls, damaged)
    served = Served(house, staged)
    closed = asyncio.Event()
    transport = LoopTransport(requests, requests, closed.set)
    peer = Peer(served, transport)
    transport.start(peer.feed)
    peer.feed(opening)
    lines.open(house.tell)
    await closed.wait()
    clock = threading.Timer(LEAVE_LIMIT, _leave, (0,))
    clock.daemon = True
    clock.start()
    await served.end()


class Served:
    """The table of a child (`invoke.Service`): the extension's methods by their names, and `$/…` for the rest of it."""

    def __init__(self, house: ChildHouse, staged: Generation | Failure) -> None:
        self._house, self._staged = house, staged
        self._life: asyncio.Task[None] | None = None
        self.bus = house.outgoing
        windows = Windows()
        own = {m.name: m for m in methods_of(self)}
        table = {name: own.pop(name) for name in ("initialize", "$/ping")} | {"$/taken": windows.method}
        methods = [] if isinstance(staged, Failure) else staged.methods
        table |= windows.serve_all(own | {m.name: m for m in methods})
        self.table, self.timings = MethodTable(), Timings()
        self.table.replace("", table.values())

    def find(self, name: str) -> Method | None:
        return self.table.get(name)

    async def resolve(self, name: str) -> Method:
        raise MethodNotFound(f"no method {name}", method=name)

    async def end(self) -> None:
        """See the extension off."""
        if self._life is not None:
            generation = self._generation
            generation.drain_limit = DRAIN_LIMIT
            generation.retiring.set()
            await generation.retired.wait()
        await self._house.aclose()

    @property
    def _generation(self) -> Generation:
        if isinstance(self._staged, Failure):
            raise Refused(self._staged)
        return self._staged

    @method("initialize")
    def initialize(self, params: _Begin) -> Description:
        """What the extension turned out to be."""
        return describe(self._generation)

    @method("$/ping")
    def ping(self, params: Empty) -> None:
        """Whether the event loop runs."""

    @method("$/activate")
    async def activate(self, params: Activate) -> None:
        """Begin the extension's life; returns when it is up."""
        from ..live import live

        self._house.data_dir = Path(params.data_dir).parent
        self.settings(Values(params.settings))
        started: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        life: Coroutine[Any, Any, None] = live(self._house, self._generation, self._failed, started)
        self._life = asyncio.create_task(life)
        if (failure := await started) is not None:
            raise Refused(failure)

    @method("$/deactivate")
    async def deactivate(self, params: Empty) -> None:
        """End it; returns when its context is undone."""
        await self.end()

    @method("$/settings")
    def settings(self, params: Values) -> None:
        """The settings are these now."""
        assert isinstance(self._house.settings, Mirror)
        self._house.settings.replace(self._generation.extension, params.settings)

    @method("$/export")
    async def export_state(self, params: Empty) -> State:
        """The state for the next generation."""
        value = await self._single("jan_export_state")
        try:
            return State(None if value is None else msgspec.msgpack.encode(value))
        except (TypeError, ValueError) as error:
            raise Refused(Failure("export", type(error).__name__, f"the state is not plain data: {error}")) from error

    @method("$/restore")
    async def restore_state(self, params: State) -> None:
        """Take over the state of the generation before."""
        from ..live import restore

        state = None if params.state is None else msgspec.msgpack.decode(params.state)
        if (failure := await restore(self._house, self._generation, state)) is not None:
            raise Refused(failure)

    @method("$/hook")
    async def hook(self, params: HookCall) -> Any:
        """Run the extension's implementation of a hook."""
        hints = get_type_hints(hookspecs()[params.name].function)
        try:
            arguments = {name: msgspec.convert(value, hints[name]) for name, value in params.arguments.items()}
        except msgspec.ValidationError as error:
            message = f"{params.name} was called with what does not fit its types: {error}"
            raise Refused(Failure("hook", "ValidationError", message)) from None
        return await self._single(params.name, **arguments)

    async def _single(self, name: str, **arguments: Any) -> Any:
        outcome = await self._house.dispatcher.single(self._generation, name, **arguments)
        if outcome is not None and outcome.failure is not None:
            raise Refused(outcome.failure)
        return outcome.value if outcome is not None else None

    def _failed(self, failure: Failure) -> None:
        self._house.tell("$/failed", Failed(failure))


def _first_line(descriptor: int) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        more = os.read(descriptor, READ_SIZE)
        if not more:
            _leave(0)
        data += more
    return data


def _die_with(lifeline: int) -> None:
    """Let the kernel kill this process group when the host's end of the lifeline closes, however that comes about.

    It signals whoever asked to hear that a pipe has something to say, and all that this one ever has is its end. No
    code of this process has to run for it. Linux only.
    """
    if sys.platform == "linux":
        import fcntl

        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
        signs = select.poll()
        signs.register(lifeline, 0)
        if signs.poll(0):  # it closed before anybody listened
            _leave(0)


def _watch(requests: int, parent: int) -> None:
    """A thread that needs no event loop: when the host has gone, this process has `LEAVE_LIMIT` seconds."""
    signs = select.poll()
    signs.register(requests, 0)  # hang-up is always told, and bytes are nobody's business here
    if sys.platform == "linux" and hasattr(os, "pidfd_open"):
        try:
            signs.register(os.pidfd_open(parent), select.POLLIN)
        except OSError:
            _leave(0)
    signs.poll()
    threading.Event().wait(LEAVE_LIMIT)
    _leave(0)


def _leave(code: int, why: str = "") -> NoReturn:
    """End now: neither a thread nor an exit handler of the extension can hold it. `why` goes to standard error."""
    try:
        with contextlib.suppress(Exception):  # the extension may have closed or replaced them
            sys.stdout.flush()
            print(why, end="", file=sys.stderr, flush=True)
    finally:
        os._exit(code)
