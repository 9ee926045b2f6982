"""Moves extensions from state to state: discovered → staged → active → draining → retired, or failed.

Every failure becomes data on the extension's record; nothing here raises for what an extension does. `loader.py`
makes a generation, `live.py` keeps it; this decides when, and swaps it in without an await so that nobody sees half a
change.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from .dispatch import FAILURES_BEFORE_QUARANTINE
from .errors import ExtensionUnavailable, MethodNotFound
from .events import Event
from .extension import Extension, Failure, Generation, State
from .loader import Source, StageError, stage
from .manifest import ManifestError
from .methods import MethodTable

if TYPE_CHECKING:
    from .live import House

__all__ = ["Lifecycle"]

log = logging.getLogger(__name__)

STAGE_LIMIT = 30.0
"""Seconds for the import of one extension: a cold disk is slow, a hung import must not hold the others up for ever."""

RETIRE_LIMIT = 2.0
"""Seconds for one extension to end when the host ends: the process must be gone 3 s after its client."""


class Lifecycle:
    """The extensions of one host, in order of their ids."""

    def __init__(self, sources: Iterable[Source], api_version: str, disabled: frozenset[str]) -> None:
        self.extensions: dict[str, Extension] = {}
        self._api_version = api_version
        self._tasks: set[asyncio.Task[Any]] = set()
        for order, source in enumerate(sources):
            self._discover(source, order, disabled)

    def begin(self, house: House, table: MethodTable) -> None:
        """Attach what active extensions live in. Called once, by the host."""
        self._house, self._table = house, table

    def start_soon(self, work: Coroutine[Any, Any, Any], name: str) -> None:
        """Run something in the background until it ends or the host does."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """End every extension and whatever runs in the background."""
        await self.retire_all()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=RETIRE_LIMIT)

    def _discover(self, source: Source, order: int, disabled: frozenset[str]) -> None:
        if source.id in self.extensions:
            self.extensions[source.id].fail(
                Failure("discover", "Duplicate", f"two installed packages claim the extension id {source.id!r}")
            )
            return
        extension = self.extensions[source.id] = Extension(source.id, source, order)
        try:
            extension.manifest, extension.version = source.manifest(self._api_version)
        except ManifestError as error:
            extension.fail(Failure("discover", "ManifestError", str(error)))
        if source.id in disabled and extension.state is State.DISCOVERED:
            extension.state = State.DISABLED

    # -- looking up -------------------------------------------------------------------------------------------------

    def owner_of(self, method: str) -> Extension:
        """The extension that would serve a method. Raises MethodNotFound."""
        for extension in self.extensions.values():
            if extension.manifest and extension.manifest.owns(method):
                return extension
        raise MethodNotFound(f"no method {method}", method=method)

    def schema_hash(self) -> str:
        """Identifies the methods this host can serve: it changes when an extension comes, goes, changes version or is
        reloaded. Known without importing any of them."""
        rows = [
            (e.id, e.version, e.state not in (State.DISABLED, State.FAILED, State.QUARANTINED), max(e.generations, 1))
            for e in self.extensions.values()
        ]
        return hashlib.sha256(msgspec.json.encode([self._api_version, rows])).hexdigest()[:16]

    # -- up ---------------------------------------------------------------------------------------------------------

    async def activate_startup(self) -> None:
        """Activate every extension whose manifest says `startup`. Returns when each is up or has failed."""
        async with asyncio.TaskGroup() as group:
            for extension in self.extensions.values():
                if extension.manifest and extension.manifest.activation == "startup":
                    group.create_task(self._try_activate(extension))

    async def _try_activate(self, extension: Extension) -> None:
        try:
            await self.activate(extension)
        except (ExtensionUnavailable, MethodNotFound):
            log.debug("%s stays %s", extension.id, extension.state)

    async def activate(self, extension: Extension) -> Generation:
        """Make an extension serve, if it does not yet. Raises ExtensionUnavailable with the reason."""
        async with extension.lock:
            if extension.current is not None and extension.state is State.ACTIVE:
                return extension.current
            if extension.state is State.DISCOVERED and extension.manifest is not None:
                extension.state, extension.failure = State.STAGED, None
                try:
                    generation = await self._bring_up(extension)
                except StageError as error:
                    extension.fail(error.failure)
                    log.warning("extension %s failed at %s: %s", extension.id, error.failure.stage, error)
                    self._announce(extension, [])
                except BaseException:
                    extension.state = State.DISCOVERED  # given up, not failed: the next caller tries again
                    raise
                else:
                    self._commit(extension, generation)
                    return generation
        raise unavailable(extension)

    async def _bring_up(self, extension: Extension) -> Generation:
        import anyio  # here: nothing is brought up before `initialize` is answered, and this takes 30 ms
        import anyio.to_thread

        from .live import live

        assert extension.manifest is not None
        extension.generations += 1
        try:
            with anyio.fail_after(STAGE_LIMIT):
                generation = await anyio.to_thread.run_sync(
                    stage, extension.source, extension.manifest, extension.generations, abandon_on_cancel=True
                )
        except TimeoutError:
            message = f"the import did not end within {STAGE_LIMIT:g} s"
            raise StageError(Failure("import", "TimeoutError", message)) from None

        def failed(failure: Failure) -> None:
            extension.failure = failure

        started: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        self.start_soon(live(self._house, generation, failed, started), generation.name)
        try:
            failure = await asyncio.shield(started)
        except asyncio.CancelledError:
            generation.retiring.set()  # whoever wanted it has gone: it ends as soon as it is up
            raise
        if failure is not None:
            raise StageError(failure)
        return generation

    def _commit(self, extension: Extension, generation: Generation) -> None:
        """Swap a generation in. No await in here: callers see the old state or the new one."""
        try:
            self._table.replace(extension.id, generation.methods)
        except ValueError as error:
            generation.retiring.set()
            extension.fail(Failure("validate", "ValueError", str(error)))
            raise unavailable(extension) from error
        self._house.dispatcher.swap(extension.current, generation, extension.order)
        extension.current, extension.state = generation, State.ACTIVE
        self._announce(extension, [m.name for m in generation.methods])

    # -- down -------------------------------------------------------------------------------------------------------

    async def retire_all(self) -> None:
        """End every active generation, all at once: calls inside have been drained or cancelled before."""
        async with asyncio.TaskGroup() as group:
            for extension in self.extensions.values():
                if extension.current is not None:
                    group.create_task(self._retire(extension, State.RETIRED))

    async def _retire(self, extension: Extension, state: State) -> None:
        generation = extension.current
        if generation is None:
            return
        self._table.replace(extension.id, [])
        self._house.dispatcher.swap(generation, None)
        extension.state = State.DRAINING
        generation.retiring.set()
        try:
            async with asyncio.timeout(RETIRE_LIMIT):
                await generation.retired.wait()
        except TimeoutError:
            log.warning("%s did not end within %g s", generation.name, RETIRE_LIMIT)
        extension.current, extension.state = None, state

    def hook_failed(self, generation: Generation, failure: Failure, in_row: int) -> None:
        """Record a failed hook; after several in a row the extension is quarantined."""
        extension = self.extensions.get(generation.extension)
        if extension is None or extension.current is not generation:
            return
        extension.failure = failure
        if in_row >= FAILURES_BEFORE_QUARANTINE and extension.state is State.ACTIVE:
            log.error("extension %s is quarantined after %d failures in a row", extension.id, in_row)
            self.start_soon(self._quarantine(extension), f"quarantine {extension.id}")

    async def _quarantine(self, extension: Extension) -> None:
        async with extension.lock:
            if extension.state is State.ACTIVE:
                removed = [m.name for m in extension.current.methods] if extension.current else []
                await self._retire(extension, State.QUARANTINED)
                self._announce(extension, [], removed)

    def _announce(self, extension: Extension, added: list[str], removed: list[str] | None = None) -> None:
        data = {
            "id": extension.id,
            "state": extension.state.value,
            "generation": extension.current.number if extension.current else 0,
            "methodsAdded": sorted(added),
            "methodsRemoved": sorted(removed or []),
            "schemaHash": self.schema_hash(),
        }
        self._house.bus.emit(Event("extensions.changed", data))


def unavailable(extension: Extension) -> MethodNotFound | ExtensionUnavailable:
    """The error for a call to an extension that does not serve, with what a person needs to know.

    One that is switched off has no methods; one that failed has them, and cannot serve them.
    """
    kind = MethodNotFound if extension.state is State.DISABLED else ExtensionUnavailable
    reason = f": {extension.failure.message}" if extension.failure else ""
    return kind(
        f"extension {extension.id} is {extension.state.value}{reason}",
        extension=extension.id,
        state=extension.state.value,
    )
