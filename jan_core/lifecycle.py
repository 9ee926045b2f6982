"""Moves extensions from state to state: discovered → staged → active → draining → retired; disabled, failed.

Every failure becomes data on the extension's record; nothing here raises for what an extension does. `loader.py`
makes a generation, `generations.py` brings it up, swaps it in and sees it off; this decides when. Replacing one that
serves is `reload.py`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from .background import keep, shared
from .dispatch import FAILURES_BEFORE_QUARANTINE
from .errors import ExtensionNotFound, ExtensionUnavailable, MethodNotFound, ShuttingDown
from .extension import Extension, Failure, Generation, State
from .generations import Generations
from .loader import Source, StageError
from .logs import logger_of
from .manifest import Manifest, ManifestError
from .reload import Reloads

if TYPE_CHECKING:
    from .live import House
    from .methods import MethodTable

__all__ = ["CORE_PREFIXES", "Lifecycle", "unavailable"]

log = logging.getLogger(__name__)

DRAIN_AT_END = 0.5
"""Seconds for what is still inside an extension when the host ends: peers have ended their requests before."""

SETTLE = 2.0
"""Seconds that `disable` waits for the calls inside before it answers; they may go on draining after that."""

CORE_PREFIXES = ("extensions.", "rpc.", "settings.", "system.")
"""Method names that are the host's own."""

TURN = 0.1
"""Seconds that one extension may take at startup before the next one begins beside it."""

OFF = (State.DISABLED, State.FAILED, State.QUARANTINED)


class Lifecycle:
    """The extensions of one host."""

    def __init__(self, sources: Iterable[Source], api_version: str, disabled: frozenset[str]) -> None:
        self.extensions: dict[str, Extension] = {}
        self._api_version = api_version
        self._background: set[asyncio.Task[Any]] = set()
        self._ending = False
        for source in sources:
            self._discover(source, disabled)

    def begin(self, house: House, table: MethodTable) -> None:
        """Attach what active extensions live in. Called once, by the host."""
        self.generations = Generations(house, table, self.schema_hash)
        self.reloads = Reloads(self, self._api_version)

    def start_soon(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the background until it ends or the host does. Raises ShuttingDown when that has begun."""
        if self._ending:
            work.close()
            raise ShuttingDown("the host is shutting down")
        return keep(self._background, asyncio.create_task(work, name=name))

    async def end(self) -> None:
        """End what runs in the background, then every extension. Nothing is activated any more."""
        self._ending = True
        await _cancel(self._background)
        async with asyncio.TaskGroup() as group:
            for extension in self.extensions.values():
                group.create_task(self.generations.end(extension, DRAIN_AT_END))
        await _cancel(self.generations.lives)

    # -- what there is ----------------------------------------------------------------------------------------------

    def _discover(self, source: Source, disabled: frozenset[str]) -> Extension:
        id = source.id
        if id in self.extensions:
            # The first one keeps the id, so that a stranger cannot switch it off by claiming the same.
            id = f"{source.id} ({source.origin})"
        extension = self.extensions[id] = Extension(id, source)
        self._read_manifest(extension)
        if source.id in disabled and extension.state is State.DISCOVERED:
            extension.state = State.DISABLED
        return extension

    def _read_manifest(self, extension: Extension) -> None:
        """Make it DISCOVERED, or FAILED."""
        extension.state, extension.failure, extension.manifest = State.DISCOVERED, None, None
        if extension.id != extension.source.id:  # a second one of its id; also when it is enabled by hand
            first = self.extensions.get(extension.source.id)
            whose = first.source.origin if first is not None else "another"
            extension.fail(
                Failure("discover", "Duplicate", f"the id {extension.source.id!r} is that of {whose} already")
            )
            return
        try:
            extension.manifest, extension.version = extension.source.manifest(self._api_version)
            self.check_claims(extension.id, extension.manifest)
        except Exception as error:
            # Whatever a package made of its manifest: the host starts.
            extension.manifest = None
            extension.fail(Failure.of("discover", error))

    def check_claims(self, id: str, manifest: Manifest) -> None:
        """Refuse prefixes that reach into somebody else's. Raises ManifestError."""
        taken = dict.fromkeys(CORE_PREFIXES, "core")
        for other in self.extensions.values():
            if other.manifest is not None and other.id != id:
                taken |= dict.fromkeys(other.manifest.methods, other.id)
        for prefix in manifest.methods:
            for theirs, owner in taken.items():
                if prefix.startswith(theirs) or theirs.startswith(prefix):
                    raise ManifestError(f"the method prefix {prefix!r} reaches into {theirs!r} of {owner}")

    async def add(self, source: Source, *, disabled: bool = False) -> Extension:
        """Take in an extension that came while the host runs, and start it if it starts with the application.

        One of the same id is replaced when it is off, and otherwise keeps the id. `disabled`: it stays off.
        """
        there = self.extensions.get(source.id)
        if there is not None and there.state in OFF:
            del self.extensions[source.id]
        extension = self._discover(source, frozenset({source.id} if disabled else ()))
        self.generations.announce(extension)
        if extension.manifest is not None and extension.manifest.activation == "startup":
            await self._try(extension)
        return extension

    async def remove(self, id: str) -> None:
        """End an extension and forget it. Raises ExtensionNotFound."""
        extension = self.find(id)
        await self._take_out(extension, State.RETIRED)
        if self.extensions.get(id) is extension:
            del self.extensions[id]
        self.generations.announce(extension)

    def find(self, id: str) -> Extension:
        """The extension of this id. Raises ExtensionNotFound."""
        try:
            return self.extensions[id]
        except KeyError:
            known = ", ".join(sorted(self.extensions)) or "none"
            raise ExtensionNotFound(f"no extension {id!r}; there are: {known}", extension=id) from None

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
            (e.id, e.version, e.state not in OFF, e.current.number if e.current else 1)
            for e in self.extensions.values()
        ]
        return hashlib.sha256(msgspec.json.encode([self._api_version, rows])).hexdigest()[:16]

    # -- up ---------------------------------------------------------------------------------------------------------

    async def activate_startup(self) -> None:
        """Activate every extension whose manifest says `startup`. Returns when each is up or has failed.

        They come up one after the other, and behind those that somebody calls: imports share one interpreter, so that
        all at once would keep the first caller waiting for the last of them. One that takes long holds up another for
        `TURN` at most.
        """
        await asyncio.sleep(0)  # what a client sent in the same breath comes first
        chosen = self._chosen(lambda manifest: manifest.activation == "startup")
        turns = []
        for extension in chosen:
            await self._settled([e.activating for e in self.extensions.values() if e.activating is not None])
            if self._ending:
                return
            turns.append(self.start_soon(self._try(extension), f"start {extension.id}"))
            await self._settled(turns[-1:])
        await asyncio.gather(*turns)

    async def _settled(self, tasks: list[asyncio.Task[Any]]) -> None:
        """Wait for them, but not for long."""
        if tasks:
            await asyncio.wait(tasks, timeout=TURN)

    async def activate_all(self) -> None:
        """Activate every extension that is not off. Returns when each is up or has failed."""
        await self._activate_where(lambda manifest: True)

    async def _activate_where(self, wanted: Callable[[Manifest], bool]) -> None:
        await asyncio.gather(*(self._try(e) for e in self._chosen(wanted)))

    def _chosen(self, wanted: Callable[[Manifest], bool]) -> list[Extension]:
        return [e for e in self.extensions.values() if e.manifest and wanted(e.manifest)]

    async def _try(self, extension: Extension) -> None:
        try:
            await self.activate(extension)
        except (ExtensionUnavailable, MethodNotFound, ShuttingDown) as error:
            log.debug("%s stays %s: %s", extension.id, extension.state, error)

    async def activate(self, extension: Extension) -> Generation:
        """Make an extension serve, if it does not yet. Raises ExtensionUnavailable with the reason.

        The activation is nobody's own: a caller that gives up leaves it to the others.
        """
        if extension.current is not None and extension.state is State.ACTIVE:
            return extension.current
        if extension.activating is None and extension.state is State.DISCOVERED:
            extension.activating = self.start_soon(self._activate(extension), f"activate {extension.id}")
            extension.state, extension.failure = State.STAGED, None
        if extension.activating is None:
            raise unavailable(extension)
        return await shared(extension.activating)

    async def _activate(self, extension: Extension) -> Generation:
        try:
            async with extension.changing:
                if extension.state not in (State.STAGED, State.DISCOVERED) or extension.manifest is None:
                    raise unavailable(extension)  # it was switched off or removed before its turn came
                staged = await self.generations.stage(extension, extension.manifest)
                staged.version = extension.version
                generation = await self.generations.activate(extension, staged)
                self.generations.commit(extension, generation)
                return generation
        except asyncio.CancelledError:  # the host ends
            extension.state = State.RETIRED
            raise ShuttingDown("the host is shutting down") from None
        except (ExtensionUnavailable, MethodNotFound):
            raise
        except Exception as error:
            failure = error.failure if isinstance(error, StageError) else Failure.of("validate", error)
            extension.fail(failure)
            logger_of(extension.id).warning("failed at %s: %s", failure.stage, failure.message)
            self.generations.announce(extension)
            raise unavailable(extension) from error
        finally:
            extension.activating = None

    async def enable(self, extension: Extension) -> None:
        """The way back from DISABLED, FAILED and QUARANTINED: read it anew and start it. What fails is recorded."""
        if extension.meant in OFF:
            self._read_manifest(extension)
            if extension.manifest is not None:
                await self._try(extension)
            else:
                self.generations.announce(extension)

    async def reload(self, extension: Extension) -> None:
        """Serve what is on disk; see `Reloads.reload`. One that nobody has called yet need not be started for it."""
        if extension.meant not in (State.DISCOVERED, State.DISABLED):
            await self.reloads.reload(extension)

    # -- down -------------------------------------------------------------------------------------------------------

    async def disable(self, extension: Extension) -> None:
        """Lead no call into it any more, and end it. Returns when it has ended, or is draining."""
        await self._take_out(extension, State.DISABLED)

    async def _take_out(self, extension: Extension, state: State) -> None:
        async with extension.changing:
            going = self.generations.take_out(extension, state)
        if going is not None:
            await asyncio.wait([going], timeout=SETTLE)

    def hook_outcome(self, generation: Generation, failure: Failure | None, in_row: int) -> None:
        """Record a failed hook, or that it works again; after several failures in a row: quarantine."""
        extension = self.extensions.get(generation.extension)
        if extension is None or extension.current is not generation:
            return
        extension.failure = failure
        if in_row >= FAILURES_BEFORE_QUARANTINE and extension.state is State.ACTIVE and not self._ending:
            logger_of(extension.id).error("quarantined after %d failures in a row; enable or reload it", in_row)
            self.start_soon(self._quarantine(extension, generation), f"quarantine {extension.id}")

    async def _quarantine(self, extension: Extension, generation: Generation) -> None:
        async with extension.changing:
            if extension.current is generation:  # a reload may have mended it meanwhile
                self.generations.take_out(extension, State.QUARANTINED)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and give them a moment to end."""
    running = list(tasks)
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=DRAIN_AT_END)


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
