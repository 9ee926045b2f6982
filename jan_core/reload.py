"""Replaces what serves by what is on disk now, without losing a call.

Read and compile everything, import it under the next generation's name, check it, hand state over, activate it: all
that off to the side, while the old generation serves. Then the swap, in one step. A failure at any point leaves the old
one serving. Edits that come during a reload are taken up by exactly one more. See `generations.py` for the steps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import msgspec

from .errors import JanError, ReloadFailed, RestartRequired
from .events import Event, ExtensionReloadFailed
from .extension import Extension, Failure, Generation, State
from .generations import in_thread
from .loader import DependenciesChanged, StageError, read
from .package import NativeCode, Snapshot

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

__all__ = ["Reloaded", "Reloads"]

STAGE_LIMIT = 5.0
"""Seconds for each of reading and importing: somebody waits for the effect of a keystroke."""


class Reloaded(msgspec.Struct, omit_defaults=True):
    """What a reload did. `changed` is false when the source is what is being served; `seconds` by step: stage (read,
    compile, import, check), export, activate, commit, and total."""

    id: str
    generation: int
    changed: bool
    seconds: dict[str, float] = {}


class Reloads:
    """The reloads of one host: one at a time for each extension, those of different extensions side by side."""

    def __init__(self, lifecycle: Lifecycle, api_version: str) -> None:
        self._lifecycle, self._api_version = lifecycle, api_version
        self._running: dict[str, asyncio.Task[Reloaded]] = {}
        self._next: dict[str, asyncio.Task[Reloaded]] = {}

    async def reload(self, extension: Extension, *, force: bool = False) -> Reloaded:
        """Serve what is on disk. `force`: also when it is what is being served. An extension that failed or is
        quarantined is started anew.

        Raises ReloadFailed, RestartRequired, or ExtensionUnavailable when it is disabled.
        """
        id = extension.id
        running = self._running.get(id)
        if running is None:
            task = self._start(self._running, extension, self._do(extension, force))
        elif (task := self._next.get(id)) is None:  # type: ignore[assignment]
            task = self._start(self._next, extension, self._after(running, extension, force))
        return await asyncio.shield(task)

    async def rollback(self, extension: Extension) -> Reloaded:
        """Serve the code of the generation before, as a new generation. Raises ReloadFailed."""
        snapshot = extension.previous
        if snapshot is None or not snapshot.compiled:
            message = f"there is no earlier code of {extension.id} in this process to go back to"
            raise ReloadFailed(message, extension=extension.id)
        async with extension.changing:
            return await self._replace(extension, snapshot)

    def _start(
        self, tasks: dict[str, asyncio.Task[Reloaded]], extension: Extension, work: Any
    ) -> asyncio.Task[Reloaded]:
        id = extension.id
        task = tasks[id] = self._lifecycle.start_soon(work, f"reload {id}")

        def done(task: asyncio.Task[Reloaded]) -> None:
            if tasks.get(id) is task:
                del tasks[id]
            if not task.cancelled():
                task.exception()  # it is on the record; its callers may all have gone

        task.add_done_callback(done)
        return task

    async def _after(self, running: asyncio.Task[Reloaded], extension: Extension, force: bool) -> Reloaded:
        await asyncio.wait([running])
        # From here on this is the one that runs, and whoever comes next waits for another.
        self._running[extension.id] = self._next.pop(extension.id)
        try:
            return await self._do(extension, force)
        finally:
            self._running.pop(extension.id, None)

    async def _do(self, extension: Extension, force: bool) -> Reloaded:
        lifecycle = self._lifecycle
        if extension.state in (State.FAILED, State.QUARANTINED):
            await lifecycle.enable(extension)
        if extension.current is None or extension.state is not State.ACTIVE:
            try:
                generation = await lifecycle.activate(extension)
            except JanError:
                if extension.failure is None or extension.state is State.DISABLED:
                    raise
                raise self._failed(extension, extension.failure) from None
            return Reloaded(extension.id, generation.number, True)
        async with extension.changing:
            return await self._replace(extension, None, force=force)

    async def _replace(self, extension: Extension, snapshot: Snapshot | None, *, force: bool = True) -> Reloaded:
        began = time.perf_counter()
        seconds: dict[str, float] = {}
        old, generations = extension.current, self._lifecycle.generations
        if old is None:
            raise ReloadFailed(f"extension {extension.id} is {extension.state.value}", extension=extension.id)

        def step(name: str, since: float) -> float:
            seconds[name] = (now := time.perf_counter()) - since
            return now

        try:
            if snapshot is None:
                manifest, version, snapshot = await in_thread(
                    "compile", STAGE_LIMIT, read, extension.source, self._api_version, old.snapshot
                )
            else:
                manifest, version = extension.source.manifest(self._api_version)
            if not force and snapshot and old.snapshot and snapshot.digest == old.snapshot.digest:
                extension.failure = None  # an edit that failed was taken back
                return Reloaded(extension.id, old.number, False, {"total": time.perf_counter() - began})
            self._lifecycle.check_claims(extension.id, manifest)
            new = await generations.stage(extension, manifest, snapshot, limit=STAGE_LIMIT)
            new.version = version
            then = step("stage", began)
            try:
                state = await self._export(old)
            except BaseException:
                extension.source.release(new.number)
                raise
            then = step("export", then)
            await generations.activate(extension, new, state)
            await generations.make_room(extension)
            then = step("activate", then)
            generations.commit(extension, new)
            step("commit", then)
        except Exception as error:
            failure = error.failure if isinstance(error, StageError) else Failure.of("validate", error)
            failed = self._failed(extension, failure)
            if isinstance(error.__cause__, NativeCode | DependenciesChanged):
                raise RestartRequired(f"{extension.id}: {failure.message}", extension=extension.id) from error
            raise failed from error
        seconds["total"] = time.perf_counter() - began
        logging.getLogger(f"jan.{extension.id}").info("%s serves after %.0f ms", new.name, seconds["total"] * 1000)
        return Reloaded(extension.id, new.number, True, seconds)

    async def _export(self, old: Generation) -> Any:
        outcome = await self._lifecycle.generations.dispatcher.single(old, "jan_export_state")
        if outcome is None:
            return None
        if outcome.failure is not None:
            outcome.failure.stage = "export"
            raise StageError(outcome.failure)
        try:
            return msgspec.to_builtins(outcome.value, builtin_types=(bytes,))
        except (TypeError, ValueError) as error:
            raise StageError(
                Failure("export", type(error).__name__, f"the state is not plain data: {error}")
            ) from error

    def _failed(self, extension: Extension, failure: Failure) -> ReloadFailed:
        """Put a failure on the record and tell everybody; returns what to tell whoever asked."""
        extension.failure = failure
        data = msgspec.to_builtins(ExtensionReloadFailed(extension.id, failure))
        self._lifecycle.generations.emit(Event("extensions.reloadFailed", data))
        where = f" ({failure.file}:{failure.line})" if failure.file else ""
        message = f"{failure.stage}: {failure.message}{where}"
        logging.getLogger(f"jan.{extension.id}").warning("reload failed at %s", message)
        return ReloadFailed(f"{extension.id} could not be reloaded: {message}", **data)
