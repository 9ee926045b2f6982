"""Brings generations up, swaps them in, and sees them off. The one place where what serves is changed.

Up: import and check in a worker thread, then a life of its own (`live.py`). In: `commit`, without an await, so that
nobody sees half a change. Off: no new calls, the running ones end or are revoked, the context is undone, the modules
are forgotten, and what is left all the same is reported. *When* any of this happens is decided in `lifecycle.py` and
`reload.py`.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .background import in_thread, keep
from .events import Event, ExtensionChanged
from .extension import Extension, Failure, Generation, State
from .live import House, live
from .loader import StageError, stage
from .logs import logger_of
from .manifest import Manifest
from .package import Snapshot

if TYPE_CHECKING:
    from .dispatch import Dispatcher
    from .leaks import Inquest
    from .methods import MethodTable

__all__ = ["Generations"]

STAGE_LIMIT = 30.0
"""Seconds for the import of one extension: a cold disk is slow, a hung import must not hold the others up for ever."""

DRAIN_LIMIT = 30.0
"""Seconds that the calls inside a generation may take once it is replaced: an answer of a model is long."""

RETIRE_LIMIT = 1.0
"""Seconds for one extension's clean-up when the host ends: the process must be gone 3 s after its client."""

MOST_LEAKS = 10
"""Leaks that are kept of one extension: a generation leaks the same as the one before, most of the time."""


class Generations:
    """The generations of one host. `schema_hash` is told with each change."""

    def __init__(self, house: House, table: MethodTable, schema_hash: Callable[[], str]) -> None:
        self._house, self._table, self._schema_hash = house, table, schema_hash
        self.lives: set[asyncio.Task[Any]] = set()
        self._inquest: Inquest | None = None

    def emit(self, event: Event) -> None:
        """Tell everybody something about an extension."""
        self._house.bus.emit(event)

    @property
    def dispatcher(self) -> Dispatcher:
        """Calls hooks of one generation."""
        return self._house.dispatcher

    async def stage(
        self, extension: Extension, manifest: Manifest, snapshot: Snapshot | None = None, *, limit: float = STAGE_LIMIT
    ) -> Generation:
        """Import and check the next generation, off to the side. Raises StageError."""
        extension.generations += 1
        source, number = extension.source, extension.generations
        undo = functools.partial(source.release, number)
        return await in_thread("import", limit, stage, source, manifest, number, snapshot, undo=undo)

    async def activate(self, extension: Extension, generation: Generation, state: Any = None) -> Generation:
        """Begin a staged generation's life, with the state it takes over. Raises StageError; it is disposed of then."""

        def failed(failure: Failure) -> None:
            generation.failure = failure
            if extension.current in (generation, None):  # of one that was replaced the log knows enough
                extension.failure = failure
            logger_of(extension.id).warning("%s failed at %s: %s", generation.name, failure.stage, failure.message)

        started: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()
        life = live(self._house, generation, failed, started, state)
        living = keep(self.lives, asyncio.create_task(life, name=generation.name))
        try:
            failure = await asyncio.shield(started)
        except asyncio.CancelledError:
            living.add_done_callback(lambda _: extension.source.release(generation.number))
            living.cancel()
            raise
        if failure is not None:
            await asyncio.wait([living])
            extension.source.release(generation.number)
            raise StageError(failure)
        return generation

    def commit(self, extension: Extension, generation: Generation) -> None:
        """Swap a generation in, whole or not at all. No await in here: callers see the old state or the new one.

        Raises ValueError when its hooks or methods clash with somebody else's; it is disposed of then.
        """
        old = extension.current
        try:
            self._house.dispatcher.swap(old, generation)
            try:
                self._table.replace(extension.id, generation.methods)
            except ValueError:
                self._house.dispatcher.swap(generation, old)
                raise
        except Exception:
            self._see_off(extension, generation, 0.0)
            raise
        extension.current, extension.state = generation, State.ACTIVE
        extension.failure = generation.failure  # of a task it has started already
        extension.manifest = generation.manifest or extension.manifest
        extension.version = generation.version or extension.version
        if old is not None:
            extension.previous = old
            self._see_off(extension, old, DRAIN_LIMIT)
        self.announce(extension, old)

    def take_out(self, extension: Extension, state: State) -> asyncio.Task[None] | None:
        """Lead nobody into an extension any more; it is in `state` once what is inside has ended. No await in here.

        Returns what to wait for, or None when nothing of it was serving.
        """
        generation = extension.current
        if generation is None:
            extension.state = state
            self.announce(extension)
            return None
        self._table.replace(extension.id, [])
        self._house.dispatcher.swap(generation, None)
        extension.current, extension.state, extension.becoming = None, State.DRAINING, state
        extension.previous = generation
        going = self._see_off(extension, generation, DRAIN_LIMIT)

        def gone(task: asyncio.Task[None]) -> None:
            if extension.state is State.DRAINING and extension.draining is None:  # not switched on and off meanwhile
                extension.state = state
                self.announce(extension)

        going.add_done_callback(gone)
        self.announce(extension, generation)
        return going

    async def settled(self) -> None:
        """Wait until every generation that was replaced or taken out is gone."""
        while going := [task for task in self.lives if task.get_name().startswith("retire")]:
            await asyncio.wait(going)

    async def make_room(self, extension: Extension, generation: Generation) -> None:
        """End the generation that still drains, so that `generation` can come in: there are never more than two.

        When the host ends meanwhile, `generation` does too.
        """
        if (older := extension.draining) is not None:
            older.hurry()
            try:
                await older.retired.wait()
            except asyncio.CancelledError:
                self._see_off(extension, generation, 0.0)
                raise

    async def end(self, extension: Extension, drain: float) -> None:
        """End everything of an extension, because the host ends."""
        ending = [g for g in (extension.current, extension.draining) if g is not None]
        if extension.current is not None:
            self._table.replace(extension.id, [])
            self._house.dispatcher.swap(extension.current, None)
            extension.current, extension.state = None, State.DRAINING
        for generation in ending:
            generation.drain_limit = min(generation.drain_limit, drain)
            generation.retiring.set()
            if generation is extension.draining:
                generation.hurry()
        try:
            async with asyncio.timeout(drain + RETIRE_LIMIT):
                for generation in ending:
                    await generation.retired.wait()
        except TimeoutError:
            names = ", ".join(g.name for g in ending if not g.retired.is_set())
            logging.getLogger(__name__).warning("%s did not end within %g s", names, drain + RETIRE_LIMIT)
        for generation in ending:  # another host in this process would be given these modules for its own generation
            if extension.source.package(generation.number) != extension.source.origin:
                extension.source.release(generation.number)
        if extension.state is State.DRAINING:
            extension.state = State.RETIRED

    def announce(self, extension: Extension, old: Generation | None = None) -> None:
        """Tell that an extension changed; `old` is the generation that served before."""
        before = {m.name for m in old.methods} if old else set()
        now = {m.name for m in extension.current.methods} if extension.current else set()
        changed = ExtensionChanged(
            extension.id,
            extension.state.value,
            extension.current.number if extension.current else 0,
            sorted(now - before),
            sorted(before - now),
            self._schema_hash(),
        )
        self.emit(Event("extensions.changed", msgspec.to_builtins(changed)))

    def _see_off(self, extension: Extension, generation: Generation, drain: float) -> asyncio.Task[None]:
        if extension.draining is not None:
            extension.draining.hurry()
        extension.draining = generation
        generation.drain_limit = drain
        generation.retiring.set()
        work = self._gone(extension, generation)
        return keep(self.lives, asyncio.create_task(work, name=f"retire {generation.name}"))

    async def _gone(self, extension: Extension, generation: Generation) -> None:
        await generation.retired.wait()
        generation.plugin, generation.settings_type = None, None
        generation.methods = []
        if extension.draining is generation:
            extension.draining = None
        package = extension.source.package(generation.number)
        if not package:  # no code of its own to forget: an object that was handed in, or another process
            return
        from .leaks import Inquest, Probe

        probe, name = Probe(package), generation.name
        extension.source.release(generation.number)

        def report(leaks: list[str]) -> None:
            extension.leaks = [*extension.leaks, *(f"{name}: {leak}" for leak in leaks)][-MOST_LEAKS:]
            for leak in leaks:
                logger_of(extension.id).warning("%s is still in memory: %s", name, leak)

        if self._inquest is None:
            self._inquest = Inquest()
        if self._inquest.open(probe, report):
            keep(self.lives, asyncio.create_task(self._inquest.hold(), name="retire: leaks"))
