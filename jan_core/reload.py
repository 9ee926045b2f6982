"""Replaces what serves by what is on disk now, without losing a call.

Read and compile everything, import it under the next generation's name, check it, hand state over, activate it: all
that off to the side, while the old generation serves. Then the swap, in one step. A failure at any point leaves the old
one serving. Edits that come during a reload are taken up by exactly one more. See `generations.py` for the steps.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import msgspec

from .background import in_thread, shared
from .errors import ExtensionUnavailable, JanError, ReloadFailed, RestartRequired
from .events import Event, ExtensionReloadFailed
from .extension import Extension, Failure, Generation, State
from .isolation import discard
from .loader import DependenciesChanged, StageError, read
from .logs import logger_of
from .package import NativeCode

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


class _Wanted(msgspec.Struct, eq=False):
    """A reload that has not begun to read: whoever wants one now wants this one."""

    force: bool = False
    task: asyncio.Task[Reloaded] | None = None


class Reloads:
    """The reloads of one host: one at a time for each extension, those of different extensions side by side."""

    def __init__(self, lifecycle: Lifecycle, api_version: str) -> None:
        self._lifecycle, self._api_version = lifecycle, api_version
        self._wanted: dict[str, _Wanted] = {}

    async def reload(self, extension: Extension, *, force: bool = False) -> Reloaded:
        """Serve what is on disk. `force`: also when it is what is being served. An extension that failed or is
        quarantined is started anew.

        Raises ReloadFailed, RestartRequired, ExtensionUnavailable when it is disabled, or ShuttingDown.
        """
        wanted = self._wanted.setdefault(extension.id, _Wanted())
        wanted.force |= force
        if wanted.task is None:
            wanted.task = self._lifecycle.start_soon(self._next(extension, wanted), f"reload {extension.id}")
        return await shared(wanted.task)

    async def rollback(self, extension: Extension) -> Reloaded:
        """Serve the code of the generation before, as a new generation. Raises ReloadFailed or ShuttingDown."""
        before = extension.previous
        if before is None or before.snapshot is None or not before.snapshot.compiled:
            message = f"there is no earlier code of {extension.id} in this process to go back to"
            raise ReloadFailed(message, extension=extension.id)
        return await shared(self._lifecycle.start_soon(self._replace(extension, before), f"rollback {extension.id}"))

    async def _next(self, extension: Extension, wanted: _Wanted) -> Reloaded:
        async with extension.reloading:
            del self._wanted[extension.id]
            return await self._do(extension, wanted.force)

    async def _do(self, extension: Extension, force: bool) -> Reloaded:
        lifecycle, meant = self._lifecycle, extension.meant
        if meant is State.DISABLED:
            message = f"extension {extension.id} is disabled; enable it first"
            raise ExtensionUnavailable(message, extension=extension.id, state=meant.value)
        if extension.current is None:
            under_way = extension.activating is not None
            try:
                if meant in (State.FAILED, State.QUARANTINED):
                    await lifecycle.enable(extension)
                generation = await lifecycle.activate(extension)
            except JanError:
                if extension.failure is None or extension.state is not State.FAILED:
                    raise
                raise self._failed(extension, extension.failure) from None
            if not under_way:  # else it may have been read before the edit
                return Reloaded(extension.id, generation.number, True)
        return await self._replace(extension, force=force)

    async def _replace(self, extension: Extension, before: Generation | None = None, *, force: bool = True) -> Reloaded:
        async with extension.changing:
            old = extension.current
            if old is None:
                raise ReloadFailed(f"extension {extension.id} is {extension.state.value}", extension=extension.id)
            try:
                return await self._exchange(extension, old, before, force)
            except Exception as error:
                failure = error.failure if isinstance(error, StageError) else Failure.of("validate", error)
                raise self._failed(extension, failure) from error

    async def _exchange(
        self, extension: Extension, old: Generation, before: Generation | None, force: bool
    ) -> Reloaded:
        """Put what is on disk in place of `old`, or what `before` was made from."""
        began = time.perf_counter()
        seconds: dict[str, float] = {}
        generations = self._lifecycle.generations

        def step(name: str, since: float) -> float:
            seconds[name] = (now := time.perf_counter()) - since
            return now

        if before is not None and before.manifest is not None:
            manifest, version, snapshot = before.manifest, before.version, before.snapshot
        else:
            manifest, version, snapshot = await in_thread(
                "compile", STAGE_LIMIT, read, extension.source, self._api_version, old.snapshot
            )
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
            discard(new.plugin)
            raise
        then = step("export", then)
        await generations.activate(extension, new, state)
        await generations.make_room(extension, new)
        then = step("activate", then)
        generations.commit(extension, new)
        step("commit", then)
        seconds["total"] = time.perf_counter() - began
        logger_of(extension.id).info("%s serves after %.0f ms", new.name, seconds["total"] * 1000)
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

    def _failed(self, extension: Extension, failure: Failure) -> ReloadFailed | RestartRequired:
        """Put a failure on the record and tell everybody; returns what to tell whoever asked."""
        extension.failure = failure
        data = msgspec.to_builtins(ExtensionReloadFailed(extension.id, failure))
        self._lifecycle.generations.emit(Event("extensions.reloadFailed", data))
        where = f" ({failure.file}:{failure.line})" if failure.file else ""
        message = f"{failure.stage}: {failure.message}{where}"
        logger_of(extension.id).warning("reload failed at %s", message)
        if failure.type in (NativeCode.__name__, DependenciesChanged.__name__):
            return RestartRequired(f"{extension.id}: {failure.message}", extension=extension.id)
        return ReloadFailed(f"{extension.id} could not be reloaded: {message}", **data)
