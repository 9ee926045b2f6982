"""The host: one object that owns the extensions, the hooks, the method table and the events of one data folder.

It is not a process and owns no descriptors: the sidecar runs it and connects peers to it. There is no global host;
two in one process do not know of each other.

    async with Host(data_dir) as host:
        await host.activate_startup()
        print(await host.client().call("extensions.list"))
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import API_VERSION
from .core_methods import CoreMethods, ServerInfo
from .dispatch import Dispatcher
from .errors import MethodNotFound, StorageError
from .events import Event, EventBus
from .extension import State
from .extension_methods import ExtensionMethods
from .hooks import Hooks
from .install.methods import InstallMethods
from .lifecycle import Lifecycle, unavailable
from .loader import Source, installed
from .methods import Method, MethodTable, methods_of
from .rpc.direct import DirectClient
from .settings import Settings
from .stall import StallWatch
from .timing import Timings
from .watch import Watcher

if TYPE_CHECKING:
    import httpx

__all__ = ["Host", "ServerInfo"]

log = logging.getLogger(__name__)

EVENT_BACKLOG = 1024
"""Events waiting for the `jan_event` hook. Past it the oldest are dropped and counted: a slow listener must not eat
memory."""


SECTION = "core"
"""The host's own section of the settings file."""


class HostSettings(msgspec.Struct):
    """`disabled`: ids of extensions that a person switched off."""

    disabled: list[str] = []


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await something that is bounded in time, cancelled or not; a cancellation is raised when it is over."""
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


def _no_http() -> httpx.AsyncClient:
    raise RuntimeError("this host was started without an HTTP client")


class Host:
    """A running house. Use it as an async context manager; leaving ends every extension.

    `sources`: the extensions (default: all installed ones). `disabled`: ids that stay off, beside those a person
    switched off. `http`: makes the shared HTTP client when it is first asked for. `watch`: reload extensions when their
    files change. Raises StorageError when the data folder cannot be made.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        sources: Iterable[Source] | None = None,
        disabled: Iterable[str] = (),
        http: Callable[[], httpx.AsyncClient] = _no_http,
        server: ServerInfo | None = None,
        watch: bool = False,
    ) -> None:
        self.data_dir = data_dir
        self.server = server or ServerInfo()
        self.bus = EventBus()
        self.table = MethodTable()
        self.settings = Settings(data_dir / "settings.json")
        off = frozenset(disabled) | frozenset(self.settings.read(SECTION, HostSettings).disabled)
        self.lifecycle = Lifecycle(installed(live=watch) if sources is None else sources, API_VERSION, off)
        self.stalls = StallWatch()
        self.dispatcher = Dispatcher(self.lifecycle.hook_outcome, self.stalls)
        self.hooks = Hooks(self.dispatcher)
        self.timings = Timings()
        """Of methods, by name; whoever runs a call records it: `host.timings.of(method.name, generation)`."""
        self.watcher = Watcher(self.lifecycle.extensions.values, self.lifecycle.reload) if watch else None
        self._http = http
        self._running = self._run()

    async def __aenter__(self) -> Host:
        await self._running.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> bool | None:
        return await self._running.__aexit__(*exc)

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make the data folder {self.data_dir}: {error.strerror}") from error
        own = methods_of(CoreMethods(self), ExtensionMethods(self), InstallMethods(self))
        self.table.replace("core", [replace(m, owner="core") for m in own])
        self.lifecycle.begin(self, self.table)
        events: asyncio.Queue[Event] = asyncio.Queue(EVENT_BACKLOG)
        dropped = 0

        def hear(event: Event) -> None:
            nonlocal dropped
            try:
                events.put_nowait(event)
            except asyncio.QueueFull:
                dropped += 1
                log.warning("jan_event listeners are behind: %d events dropped", dropped)

        with self.stalls.attached(), self.bus.subscribe(hear):
            self.lifecycle.start_soon(self._tell_extensions(events), "jan_event")
            if self.watcher is not None:
                self.lifecycle.start_soon(self.watcher.run(self.bus), "watch")
            try:
                yield
            finally:
                await _to_its_end(self.lifecycle.end())

    async def _tell_extensions(self, events: asyncio.Queue[Event]) -> None:
        while True:
            await self.hooks.event(await events.get())

    async def activate_startup(self) -> None:
        """Activate the extensions that ask for it; returns when each is up or has failed."""
        await self.lifecycle.activate_startup()

    def activate_startup_soon(self) -> None:
        """The same in the background: what `initialized` does, so that no client waits for it."""
        self.lifecycle.start_soon(self.lifecycle.activate_startup(), "startup")

    def remember_disabled(self, id: str, off: bool) -> None:
        """Keep for the next start whether an extension is switched off. Raises StorageError."""
        before = set(self.settings.read(SECTION, HostSettings).disabled)
        after = before | {id} if off else before - {id}
        if after != before:
            self.settings.write(SECTION, HostSettings, {"disabled": sorted(after)})

    def client(self, name: str = "direct") -> DirectClient:
        """A caller in this process."""
        return DirectClient(self, name)

    def http(self) -> httpx.AsyncClient:
        """The shared HTTP client."""
        return self._http()

    # -- what peers need (invoke.Service) ---------------------------------------------------------------------------

    def find(self, name: str) -> Method | None:
        return self.table.get(name)

    async def resolve(self, name: str) -> Method:
        extension = self.lifecycle.owner_of(name)
        if extension.state in (State.DISABLED, State.FAILED, State.QUARANTINED):
            raise unavailable(extension)
        await self.lifecycle.activate(extension)
        method = self.table.get(name)
        if method is None:
            raise MethodNotFound(f"no method {name}; extension {extension.id} has none of that name", method=name)
        return method
