"""Taking an engine into use: installed if need be, and given up for another one when it does not do.

* A build that was just switched to has run a tiny model in its check, no more. When it then cannot start, or fails at a
  model that an earlier engine has loaded, the earlier one gets the model. If that works, the new one is to blame: it is
  set aside with the reason, which `engines.explain` shows, and neither used nor installed again until a person asks for
  it. If the earlier one fails as well, the engine is not to blame and nothing changes.
* A GPU build that finds no GPU now (its driver broke, or it is hidden) gives way for this load; the next one tries it
  again. Where a person chose it, the load fails and says so.
* An engine stays in use when this software is updated. One that lacks something the worker needs, or at which the
  worker's own code fails with a model that the engine has loaded before, is set aside, for this version of the software
  alone, and what is chosen then is installed.

Each of these is told: in the progress, in the log and the event `engines.changed`, and in what is said of the load. It
decides on engines only; what a worker is made of is the caller's business.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio.to_thread
from msgspec.structs import replace

from jan_core import JanError
from jan_core.types import BuildChoice, EngineBuild

from .engine_holds import EngineHolds, Hold
from .engines import choice, installed
from .engines.builds import ENGINE_VERSION, preferred
from .engines.errors import EngineInstallFailed
from .engines.progress import OnProgress, Progress
from .engines.record import InstalledEngine
from .errors import NoUsableEngine
from .failures import EngineBroken, ModelLoadFailed, OutOfMemory, WorkerDied

if TYPE_CHECKING:
    from .engines.installer import EngineInstaller
    from .selection import EngineSelection, Selected

__all__ = ["EngineUse"]

T = TypeVar("T")

_OWN_FAULT = ("no_device", "check_failed", "build_failed")
"""Failures of an installation that come again with every attempt."""
_FROM_A_FILE = (
    f"Without: jan engines install --wheel FILE, with a wheel of llama-cpp-python {ENGINE_VERSION} for this machine"
)
_ONLINE = f"With a network, and not offline (settings offline and routing): jan engines install {{id}}. {_FROM_A_FILE}"
_ADVICE = {
    **dict.fromkeys(("network", "slow", "not_found", "server", "web_page", "truncated", "wrong_hash"), _ONLINE),
    "refused": f"Switch on the setting compile_engines, or prebuilt_wheels, and not offline. {_FROM_A_FILE}",
    "compiler_missing": _FROM_A_FILE,
}
"""What to do about an installation that failed so. Of other failures the message says it."""


class EngineUse:
    """`installer` makes one as the settings want it now. `on_change(id, installed, reason)` is called when a build was
    set aside, or gave way. `log` hears of decisions that cannot be kept. `holds` tells what is being loaded on.
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
        self._without_device: set[str] = set()  # the engines of which this was told
        self.holds = EngineHolds()

    async def run(
        self,
        model: str,
        report: OnProgress,
        start: Callable[[InstalledEngine], Awaitable[T]],
        discard: Callable[[T], None],
    ) -> tuple[T, InstalledEngine, list[str]]:
        """What `start` makes of the engine that is chosen for this machine, the engine it runs on, and why that is not
        another one which might be expected. `discard` gives it up again when this call is cancelled after that.

        Raises NoUsableEngine, EngineInstallFailed, and what `start` raises.
        """
        with self.holds.load(model) as hold:
            load = _Load(model, report, start, discard, hold)
            while True:
                engine = None
                try:
                    selected, engine = await self._engine(load)
                    result, used = await self._start(selected, engine, load)
                except JanError as failure:
                    if engine is not None and await self._gives_way(selected, engine, failure, load):
                        continue
                    first = next(iter(load.without.values()), failure)
                    if first is failure:
                        raise
                    raise EngineBroken(f"{first.message} In its place: {failure.message}", **first.data) from None
                self._without_device.discard(used.name)
                return result, used, [*selected.warnings, *load.said]

    async def _start(self, selected: Selected, engine: InstalledEngine, load: _Load[T]) -> tuple[T, InstalledEngine]:
        """The model on this engine, or if that is new and to blame, on an earlier one."""
        known = await anyio.to_thread.run_sync(choice.read, self._engines)
        blamed: InstalledEngine | None = None
        reason = ""
        try:
            result = await load.start(engine)
        except (EngineBroken, ModelLoadFailed, WorkerDied) as failure:
            earlier = await anyio.to_thread.run_sync(self._earlier, selected, engine, known, load.model, failure)
            if earlier is None:
                raise
            load.show(f"{engine.name} failed at its first use; trying {earlier.name} as before")
            await load.hold.take(earlier.id)
            try:
                result = await load.start(earlier)
            except JanError:
                raise failure from None
            reason = f"its first use failed ({failure.message}), while {earlier.name} could load {load.model}"
            load.said.append(f"{engine.name} is not used any more: {reason}")
            blamed, engine = engine, earlier
        try:
            if blamed:
                await self._set_aside(blamed.name, blamed.id, reason, "use", back_to=engine.id)
            if not known.is_latest(engine.name, load.model):
                await self._decide(partial(choice.Choice.prove, name=engine.name, model=load.model))
        except BaseException:
            load.discard(result)
            raise
        return result, engine

    async def _gives_way(self, selected: Selected, engine: InstalledEngine, failure: JanError, load: _Load[T]) -> bool:
        """Whether another engine is to be tried in place of this one, which failed so."""
        if _reason(failure) == "no_device":
            if selected.by == "person" or engine.record.variant in load.without:
                return False
            reason = "it finds no GPU here now"
            load.without[engine.record.variant] = failure
            if engine.name not in self._without_device:
                self._without_device.add(engine.name)
                self._on_change(engine.id, True, f"{reason}; the next load tries it again")
        elif await anyio.to_thread.run_sync(self._outdated, engine, failure, load.model):
            reason = f"it does not suit this version of the software ({failure.message})"
            same = f"{engine.id.removesuffix(f'-{engine.record.version}')}-{ENGINE_VERSION}"
            usable = any(build.id == same and not build.refused for build in selected.builds)
            back_to = same if usable else ""
            await self._set_aside(engine.name, engine.id, reason, "use", back_to=back_to, worker=ENGINE_VERSION)
            decided = await anyio.to_thread.run_sync(choice.read, self._engines)
            if engine.name not in decided.aside:  # that could not be written: it would be chosen again
                return False
        else:
            return False
        load.said.append(f"{engine.name} is not used: {reason}")
        load.show(f"{engine.name} cannot be used ({reason}); taking another build")
        return True

    async def _engine(self, load: _Load[T]) -> tuple[Selected, InstalledEngine]:
        """The chosen engine, or the next best where its kind of GPU is not there. One that cannot be installed here is
        given up for one that is installed, if there is; one that cannot be installed now (no network, a full disk), for
        this time, unless a person chose it.
        """
        selected = await self._selection.select()
        if selected.build.variant in load.without:
            selected = _beside(selected, load.without)
        try:
            return selected, await self._ensure(selected.build, load)
        except EngineInstallFailed as failure:
            if failure.reason not in _OWN_FAULT:
                instead = _installed(selected, load.without)
                if instead is None or selected.by == "person":
                    raise await self._advised(failure) from None
                message = f"{selected.build.id} cannot be installed now ({failure.message}); using {instead.id}"
                self._selection.warn(message)
                load.show(message)
                return selected, await self._ensure(instead, load)
            _, folder = installed.next_generation(self._engines, selected.build.id)
            reason = f"its installation failed: {failure.message}"
            await self._set_aside(folder.name, selected.build.id, reason, "install")
            try:
                other = await self._selection.select()
            except JanError:
                raise failure from None
            if not other.build.installed or other.build.variant in load.without:
                raise  # the next request may install it; this one hears what happened
            load.show(f"{selected.build.id} cannot be used ({failure.message}); using {other.build.id}")
            return other, await self._ensure(other.build, load)

    async def _ensure(self, build: EngineBuild, load: _Load[T]) -> InstalledEngine:
        await load.hold.take(build.id)
        return await self._installer().ensure(build, load.report)

    async def _advised(self, failure: EngineInstallFailed) -> EngineInstallFailed:
        """The failure with what to do about it, and why what is installed cannot be used."""
        decided = await anyio.to_thread.run_sync(choice.read, self._engines)
        unsuited = {entry.id: entry.reason for entry in decided.aside.values() if entry.worker}
        aside = [f"{id} is installed, but {reason}" for id, reason in unsuited.items()]
        advice = _ADVICE.get(failure.reason, "").format(id=failure.data["build"])
        return EngineInstallFailed(". ".join(filter(None, [failure.message, *aside, advice])), **failure.data)

    def _earlier(
        self, selected: Selected, engine: InstalledEngine, known: choice.Choice, model: str, failure: JanError
    ) -> InstalledEngine | None:
        """The engine to try in place of a new one: the last that loaded this model, or any if the new one is broken."""
        if engine.name in known.proven or isinstance(failure, OutOfMemory):
            return None
        if _reason(failure) == "no_device" or self._outdated(engine, failure, model):
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

    def _outdated(self, engine: InstalledEngine, failure: JanError, model: str) -> bool:
        """Whether the failure is that the worker is written for another version than this engine's."""
        if engine.record.version.partition("+")[0] == ENGINE_VERSION:
            return False
        defect = isinstance(failure, ModelLoadFailed) and failure.data.get("cause") == "defect"
        known = choice.read(self._engines).proven.get(engine.name, [])
        return _reason(failure) == "incompatible" or (defect and model in known)

    async def _set_aside(
        self, name: str, id: str, reason: str, by: Any, *, back_to: str = "", worker: str = ""
    ) -> None:
        def edit(decided: choice.Choice) -> None:
            decided.set_aside(name, id, reason, by, worker)
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


@dataclass(frozen=True)
class _Load(Generic[T]):
    """One load. `said`: why engines are not used; `without`: the kinds of GPU that are not there, by what failed."""

    model: str
    report: OnProgress
    start: Callable[[InstalledEngine], Awaitable[T]]
    discard: Callable[[T], None]
    hold: Hold
    said: list[str] = field(default_factory=list)
    without: dict[str, JanError] = field(default_factory=dict)

    def show(self, message: str) -> None:
        self.report(Progress("checking", message))


def _beside(selected: Selected, without: Collection[str]) -> Selected:
    """The next best of what is installed, else the build for the processor. Raises NoUsableEngine."""
    cpu = next((build for build in selected.builds if build.variant == "cpu" and not build.refused), None)
    build = _installed(selected, without) or cpu
    if build is None:
        raise NoUsableEngine("there is no other build that can be used", refused={})
    return replace(selected, choice=BuildChoice(build.id, f"no GPU was found by {', '.join(without)} builds"))


def _installed(selected: Selected, without: Collection[str]) -> EngineBuild | None:
    """The best build that is installed and can be used, of other variants than these."""
    usable = (build for build in selected.builds if build.installed and not build.refused)
    return preferred(build for build in usable if build.variant not in without)


def _reason(failure: JanError) -> str:
    return str(failure.data.get("reason") or "") if isinstance(failure, EngineBroken) else ""
