"""Taking an engine into use: installed if need be, and given up for an earlier one when its first use fails.

A build that was just switched to has run a tiny model in its check, no more. When it then cannot start, or fails at a
model that an earlier engine has loaded, the earlier one gets the model. If that works, the new one is to blame: it is
set aside with the reason, which `engines.explain` shows, and neither used nor installed again until a person asks for
it. If the earlier one fails as well, the engine is not to blame and nothing changes.

It decides on engines only; what a worker is made of is the caller's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio.to_thread

from jan_core import JanError

from .engines import choice, installed
from .engines.builds import preferred
from .engines.errors import EngineInstallFailed
from .engines.progress import OnProgress, Progress
from .engines.record import InstalledEngine
from .failures import EngineBroken, ModelLoadFailed, OutOfMemory, WorkerDied

if TYPE_CHECKING:
    from .engines.installer import EngineInstaller
    from .selection import EngineSelection, Selected

__all__ = ["EngineUse"]

T = TypeVar("T")

_OWN_FAULT = ("no_device", "check_failed", "build_failed")
"""Failures of an installation that come again with every attempt."""


class EngineUse:
    """`installer` makes one as the settings want it now. `on_change(id, installed, reason)` is called when a build was
    set aside. `log` hears of decisions that cannot be kept.
    """

    def __init__(
        self,
        engines: Path,
        selection: EngineSelection,
        installer: Callable[[], EngineInstaller],
        on_change: Callable[[str, bool, str], None],
        log: Logger,
    ) -> None:
        self._engines = engines
        self._selection = selection
        self._installer = installer
        self._on_change = on_change
        self._log = log

    async def run(
        self,
        model: str,
        report: OnProgress,
        start: Callable[[InstalledEngine], Awaitable[T]],
        discard: Callable[[T], None],
    ) -> tuple[T, InstalledEngine]:
        """What `start` makes of the engine that is chosen for this machine, and the engine it runs on. `discard` gives
        it up again when this call is cancelled after that.

        Raises NoUsableEngine, EngineInstallFailed, and what `start` raises.
        """
        selected, engine = await self._engine(report)
        known = await anyio.to_thread.run_sync(choice.read, self._engines)
        blamed = reason = ""
        blamed_id = engine.id
        try:
            result = await start(engine)
        except (EngineBroken, ModelLoadFailed, WorkerDied) as failure:
            earlier = await anyio.to_thread.run_sync(self._earlier, selected, engine, known, model, failure)
            if earlier is None:
                raise
            report(Progress("checking", f"{engine.name} failed at its first use; trying {earlier.name} as before"))
            try:
                result = await start(earlier)
            except JanError:
                raise failure from None
            reason = f"its first use failed ({failure.message}), while {earlier.name} could load {model}"
            blamed, engine = engine.name, earlier
        try:
            if blamed:
                await self._set_aside(blamed, blamed_id, reason, "use", back_to=engine.id)
            if not known.is_latest(engine.name, model):
                await self._decide(partial(choice.Choice.prove, name=engine.name, model=model))
        except BaseException:
            discard(result)
            raise
        return result, engine

    async def _engine(self, report: OnProgress) -> tuple[Selected, InstalledEngine]:
        """The chosen engine. One that cannot be installed here is given up for one that is installed, if there is; one
        that cannot be installed now (no network, a full disk), for this time, unless a person chose it.
        """
        selected = await self._selection.select()
        try:
            return selected, await self._installer().ensure(selected.build, report)
        except EngineInstallFailed as failure:
            if failure.reason not in _OWN_FAULT:
                instead = preferred(build for build in selected.builds if build.installed and not build.refused)
                if instead is None or selected.by == "person":
                    raise
                message = f"{selected.build.id} cannot be installed now ({failure.message}); using {instead.id}"
                self._selection.warn(message)
                report(Progress("checking", message))
                return selected, await self._installer().ensure(instead, report)
            _, folder = installed.next_generation(self._engines, selected.build.id)
            reason = f"its installation failed: {failure.message}"
            await self._set_aside(folder.name, selected.build.id, reason, "install")
            try:
                other = await self._selection.select()
            except JanError:
                raise failure from None
            if not other.build.installed:
                raise  # the next request may install it; this one hears what happened
            report(
                Progress("checking", f"{selected.build.id} cannot be used ({failure.message}); using {other.build.id}")
            )
            return other, await self._installer().ensure(other.build, report)

    def _earlier(
        self, selected: Selected, engine: InstalledEngine, known: choice.Choice, model: str, failure: JanError
    ) -> InstalledEngine | None:
        """The engine to try in place of a new one: the last that loaded this model, or any if the new one is broken."""
        if engine.name in known.proven or isinstance(failure, OutOfMemory):
            return None
        allowed = {build.id for build in selected.builds if not build.refused}
        broken = isinstance(failure, EngineBroken)
        names = [name for name in reversed(known.proven) if broken or model in known.proven[name]]
        here = {
            each.name: each
            for id in allowed
            for each in installed.generations(self._engines, id)
            if each.name not in known.aside and each.name != engine.name
        }
        return next((here[name] for name in [*names, *(here if broken else ())] if name in here), None)

    async def _set_aside(self, name: str, id: str, reason: str, by: Any, *, back_to: str = "") -> None:
        def edit(decided: choice.Choice) -> None:
            decided.set_aside(name, id, reason, by)
            if decided.use == id:
                decided.use = back_to

        await self._decide(edit)
        still = await anyio.to_thread.run_sync(installed.find, self._engines, id)
        self._on_change(id, still is not None, reason)

    async def _decide(self, edit: Callable[[choice.Choice], None]) -> None:
        try:
            await anyio.to_thread.run_sync(choice.change, self._engines, edit)
        except OSError as error:  # the model is there all the same
            self._log.warning("what was decided about engines cannot be kept: %s", error)
