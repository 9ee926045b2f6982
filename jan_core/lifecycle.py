"""Moves extensions from state to state: discovered → staged → active → draining → retired, or failed.

Every failure becomes data on the extension's record; nothing here raises for what an extension does. `loader.py`
makes a generation, `live.py` keeps it; this decides when, and swaps it in without an await so that nobody sees half a
change.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .dispatch import FAILURES_BEFORE_QUARANTINE
from .errors import ExtensionUnavailable, MethodNotFound, ShuttingDown
from .events import Event
from .extension import Extension, Failure, Generation, State
from .loader import Source, StageError, stage
from .manifest import Manifest, ManifestError
from .methods import MethodTable

if TYPE_CHECKING:
    from .live import House

__all__ = ["Lifecycle"]

log = logging.getLogger(__name__)
T = TypeVar("T")

STAGE_LIMIT = 30.0
"""Seconds for the import of one extension: a cold disk is slow, a hung import must not hold the others up for ever."""

RETIRE_LIMIT = 1.0
"""Seconds for one extension's clean-up: the process must be gone 3 s after its client."""

DRAIN_AT_END = 0.5
"""Seconds for what is still inside an extension when the host ends: peers have ended their requests before."""

CORE_PREFIXES = ("extensions.", "rpc.", "settings.", "system.")
"""Method names that are the host's own."""


class Lifecycle:
    """The extensions of one host."""

    def __init__(self, sources: Iterable[Source], api_version: str, disabled: frozenset[str]) -> None:
        self.extensions: dict[str, Extension] = {}
        self._api_version = api_version
        self._background: set[asyncio.Task[Any]] = set()
        self._lives: set[asyncio.Task[None]] = set()
        self._ending = False
        for source in sources:
            self._discover(source, disabled)

    def begin(self, house: House, table: MethodTable) -> None:
        """Attach what active extensions live in. Called once, by the host."""
        self._house, self._table = house, table

    def start_soon(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the background until it ends or the host does."""
        return _keep(self._background, asyncio.create_task(work, name=name))

    async def end(self) -> None:
        """End what runs in the background, then every extension. Nothing is activated any more."""
        self._ending = True
        await _cancel(self._background)
        async with asyncio.TaskGroup() as group:
            for extension in self.extensions.values():
                group.create_task(self._retire(extension, State.RETIRED, DRAIN_AT_END))
        await _cancel(self._lives)

    def _discover(self, source: Source, disabled: frozenset[str]) -> None:
        id = source.id
        if id in self.extensions:
            # The first one keeps the id, so that a stranger cannot switch it off by claiming the same.
            id = f"{source.id} ({source.origin})"
            extension = self.extensions[id] = Extension(id, source)
            kept = self.extensions[source.id].source.origin
            extension.fail(Failure("discover", "Duplicate", f"the id {source.id!r} is that of {kept} already"))
            return
        extension = self.extensions[id] = Extension(id, source)
        try:
            extension.manifest, extension.version = source.manifest(self._api_version)
            self._check_claims(extension.manifest)
        except Exception as error:
            # Whatever a package made of its manifest: the host starts.
            extension.manifest = None
            extension.fail(Failure.of("discover", error))
        if source.id in disabled and extension.state is State.DISCOVERED:
            extension.state = State.DISABLED

    def _check_claims(self, manifest: Manifest) -> None:
        """Refuse prefixes that reach into somebody else's. Raises ManifestError."""
        taken = dict.fromkeys(CORE_PREFIXES, "core")
        for other in self.extensions.values():
            if other.manifest is not None and other.manifest is not manifest:
                taken |= dict.fromkeys(other.manifest.methods, other.id)
        for prefix in manifest.methods:
            for theirs, owner in taken.items():
                if prefix.startswith(theirs) or theirs.startswith(prefix):
                    raise ManifestError(f"the method prefix {prefix!r} reaches into {theirs!r} of {owner}")

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
        await self._activate_where(lambda manifest: manifest.activation == "startup")

    async def activate_all(self) -> None:
        """Activate every extension that is not off. Returns when each is up or has failed."""
        await self._activate_where(lambda manifest: True)

    async def _activate_where(self, wanted: Callable[[Manifest], bool]) -> None:
        chosen = [e for e in self.extensions.values() if e.manifest and wanted(e.manifest)]
        outcomes = await asyncio.gather(*(self.activate(e) for e in chosen), return_exceptions=True)
        for extension, outcome in zip(chosen, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.debug("%s stays %s: %s", extension.id, extension.state, outcome)

    async def activate(self, extension: Extension) -> Generation:
        """Make an extension serve, if it does not yet. Raises ExtensionUnavailable with the reason.

        The activation is nobody's own: a caller that gives up leaves it to the others.
        """
        if extension.current is not None and extension.state is State.ACTIVE:
            return extension.current
        if self._ending:
            raise ShuttingDown("the host is shutting down")
        if extension.activating is None and extension.state is State.DISCOVERED:
            extension.activating = self.start_soon(self._activate(extension), f"activate {extension.id}")
            extension.activating.add_done_callback(_retrieve)
        if extension.activating is None:
            raise unavailable(extension)
        return await asyncio.shield(extension.activating)

    async def _activate(self, extension: Extension) -> Generation:
        extension.state, extension.failure = State.STAGED, None
        try:
            generation = await self._bring_up(extension)
            self._commit(extension, generation)
            return generation
        except asyncio.CancelledError:  # the host ends
            extension.state = State.RETIRED
            raise ShuttingDown("the host is shutting down") from None
        except Exception as error:
            failure = error.failure if isinstance(error, StageError) else Failure.of("validate", error)
            extension.fail(failure)
            log.warning("extension %s failed at %s: %s", extension.id, failure.stage, failure.message)
            self._announce(extension, [])
            raise unavailable(extension) from error
        finally:
            extension.activating = None

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
        life = live(self._house, generation, failed, started)
        living = _keep(self._lives, asyncio.create_task(life, name=generation.name))
        try:
            failure = await asyncio.shield(started)
        except asyncio.CancelledError:
            living.cancel()
            raise
        if failure is not None:
            raise StageError(failure)
        return generation

    def _commit(self, extension: Extension, generation: Generation) -> None:
        """Swap a generation in, whole or not at all. No await in here: callers see the old state or the new one."""
        old = extension.current
        try:
            self._house.dispatcher.swap(old, generation)
            try:
                self._table.replace(extension.id, generation.methods)
            except ValueError:
                self._house.dispatcher.swap(generation, old)
                raise
        except Exception:
            generation.retiring.set()
            raise
        extension.current, extension.state = generation, State.ACTIVE
        self._announce(extension, [m.name for m in generation.methods])

    # -- down -------------------------------------------------------------------------------------------------------

    async def _retire(self, extension: Extension, state: State, drain: float) -> None:
        generation = extension.current
        if generation is None:
            return
        self._take_out(extension, generation, drain)
        try:
            async with asyncio.timeout(drain + RETIRE_LIMIT):
                await generation.retired.wait()
        except TimeoutError:
            log.warning("%s did not end within %g s", generation.name, drain + RETIRE_LIMIT)
        if extension.current is generation:
            extension.current, extension.state = None, state

    def _take_out(self, extension: Extension, generation: Generation, drain: float) -> None:
        """Lead nobody into a generation any more, and let it end. No await in here."""
        self._table.replace(extension.id, [])
        self._house.dispatcher.swap(generation, None)
        extension.state = State.DRAINING
        generation.drain_limit = drain
        generation.retiring.set()

    def hook_outcome(self, generation: Generation, failure: Failure | None, in_row: int) -> None:
        """Record a failed hook, or that it works again; after several failures in a row: quarantine."""
        extension = self.extensions.get(generation.extension)
        if extension is None or extension.current is not generation:
            return
        extension.failure = failure
        if in_row >= FAILURES_BEFORE_QUARANTINE and extension.state is State.ACTIVE:
            log.error("extension %s is quarantined after %d failures in a row", extension.id, in_row)
            self.start_soon(self._quarantine(extension, generation), f"quarantine {extension.id}")

    async def _quarantine(self, extension: Extension, generation: Generation) -> None:
        if extension.current is generation and extension.state is State.ACTIVE:
            await self._retire(extension, State.QUARANTINED, generation.drain_limit)
            self._announce(extension, [], [m.name for m in generation.methods])

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


def _keep(tasks: set[asyncio.Task[T]], task: asyncio.Task[T]) -> asyncio.Task[T]:
    """Hold on to a task while it runs: the loop itself keeps only a weak reference."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and give them a moment to end."""
    running = list(tasks)
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=DRAIN_AT_END)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Its callers may all have gone: a failure that is on the record need not be logged as lost."""
    if not task.cancelled():
        task.exception()


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
