"""Which engine build this machine uses: what the hooks propose, what they choose, and why each other one was
not taken.

Nothing is installed here (`engines/installer.py`). The choice is made anew each time it is needed; it is
cheap, and a setting or an extension may have changed it. What the machine is is asked again after a few seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import anyio.to_thread
from msgspec import Struct, field
from msgspec.structs import replace

from jan_core import Context
from jan_core.types import BuildChoice, EngineBuild, Hardware

from .engines import choice, installed
from .engines.builds import named, preferred
from .engines.errors import EngineNotFound
from .engines.hardware import Detector
from .errors import NoUsableEngine

__all__ = ["EngineSelection", "Selected"]


class Selected(Struct, frozen=True):
    """The outcome. `by` is the extension that chose, or `person`; `builds` are all candidates, refused ones as well.
    `warnings`: what a person expects and does not get, and what to do.
    """

    hardware: Hardware
    builds: list[EngineBuild]
    choice: BuildChoice
    by: str
    warnings: list[str] = field(default_factory=list)

    @property
    def build(self) -> EngineBuild:
        return next(build for build in self.builds if build.id == self.choice.build)


class EngineSelection:
    """Asks the house's hooks. `engines`: the folder of the installed builds. `in_use`: ids of those that loaded models
    run on.
    """

    def __init__(
        self,
        ctx: Context,
        engines: Path,
        in_use: Callable[[], Collection[str]] = tuple,
        detector: Detector | None = None,
    ) -> None:
        self._ctx = ctx
        self._engines = engines
        self._in_use = in_use
        self._detector = detector or Detector()
        self._warned: set[str] = set()

    async def candidates(self, *, fresh: bool = False) -> tuple[Hardware, list[EngineBuild]]:
        """This machine, and every build for it, each id once: those that somebody proposes, marked when installed, and
        those of other versions that are installed. One that is set aside is refused with the reason.

        `fresh`: look at the hardware now, not some seconds ago.
        """
        hardware = await anyio.to_thread.run_sync(partial(self._detector.hardware, fresh=fresh))
        proposed = (await self._ctx.hooks.engine_builds(hardware)).values
        engines = await anyio.to_thread.run_sync(installed.list_installed, self._engines)
        decided = await anyio.to_thread.run_sync(choice.read, self._engines)
        here = {engine.id: engine.record for engine in engines}
        earlier = await anyio.to_thread.run_sync(installed.list_earlier, self._engines)
        builds: dict[str, EngineBuild] = {}
        for build in (build for builds in proposed for build in builds):
            build.installed = build.id in here
            builds.setdefault(build.id, build)
        offline = self._ctx.settings.policy == "offline"
        of_kind = {_kind(build.id, build.version): build for build in builds.values()}
        for id, record in ({engine.id: engine.record for engine in earlier} | here).items():
            if id not in builds:
                like = of_kind.get(_kind(id, record.version), EngineBuild(id, record.variant, record.version))
                builds[id] = replace(like, id=id, version=record.version, index="", installed=id in here)
        for build in builds.values():
            if not build.refused and not build.installed:
                build.refused = decided.refusal(build.id)
            if build.id in self._in_use():
                build.doubt = ""  # what fills the GPU's memory may well be its own models
            if offline and not build.installed and build.variant != "cpu":
                build.needs = build.needs or "it is not installed, and offline mode is on"
        return hardware, list(builds.values())

    async def find(self, id: str) -> EngineBuild:
        """The candidate of this id. Raises EngineNotFound with the ids there are."""
        _, builds = await self.candidates()
        for build in builds:
            if build.id == id:
                return build
        known = [build.id for build in builds]
        raise EngineNotFound(f"there is no engine build {id!r}; known: {', '.join(known)}", build=id, known=known)

    async def select(self, *, fresh: bool = False) -> Selected:
        """The build to use: the one a person chose, else the best of those that the setting `engine_build` names, else
        what the hooks choose. A choice that is refused or unknown is an error: nothing else is taken in its place.
        Where no build that the setting names can be used, the warnings say so.

        Raises NoUsableEngine.
        """
        hardware, builds = await self.candidates(fresh=fresh)
        selected = await self._choose(hardware, builds)
        for warning in selected.warnings:
            self.warn(warning)
        return selected

    def warn(self, text: str) -> None:
        """Log what keeps a person from what they expect, once."""
        if text not in self._warned:
            self._warned.add(text)
            self._ctx.log.warning("%s", text)

    async def _choose(self, hardware: Hardware, builds: list[EngineBuild]) -> Selected:
        warnings = list(hardware.warnings)
        decided = await anyio.to_thread.run_sync(choice.read, self._engines)
        if decided.use:
            by_hand = BuildChoice(decided.use, "it was chosen by hand")
            return _usable(Selected(hardware, builds, by_hand, "person", warnings))
        wanted: str = self._ctx.settings.engine_build
        meant = named(builds, wanted) if wanted else []
        best = preferred(build for build in meant if not build.refused)
        if best:
            asked = BuildChoice(best.id, f"the setting engine_build is {wanted!r}")
            return Selected(hardware, builds, asked, "person", warnings)
        outcome = await self._ctx.hooks.select_engine_build(hardware, builds)
        if outcome is None or outcome.value is None:
            refused = {build.id: build.refused for build in builds if build.refused}
            raise NoUsableEngine("no engine build can be used on this machine", refused=refused)
        if wanted:
            why = meant[0].refused if meant else f"there is no such build; known: {', '.join(b.id for b in builds)}"
            warnings.append(f"The setting engine_build is {wanted!r}, but {outcome.value.build} is used: {why}")
        selected = _usable(Selected(hardware, builds, outcome.value, outcome.extension, warnings))
        warnings += _lost(builds)
        if selected.build.variant == "cpu":
            warnings += _idle(hardware, builds)
        return selected


def _lost(builds: list[EngineBuild]) -> list[str]:
    """The installed builds for a GPU that cannot be used, as when its driver does not answer any more."""
    lost = (build for build in builds if build.installed and build.refused and build.variant != "cpu")
    return [f"{build.id} is installed, but it is not used: {build.refused}" for build in lost]


def _idle(hardware: Hardware, builds: list[EngineBuild]) -> list[str]:
    """The GPUs with memory of their own that stay idle, and why: by what speaks against the best build for each."""
    warnings: dict[str, str] = {}
    for device in hardware.devices:
        mine = [build for build in builds if build.variant == device.kind]
        told = any(device.name in name or name in device.name for name in warnings)  # one card, by two drivers
        if device.integrated or told or not mine:
            continue
        held = preferred(build for build in mine if not build.refused) or mine[-1]  # the last one needs the least
        why = held.refused or held.doubt or held.needs
        if why:
            warnings[device.name] = f"The {device.name} is not used. {held.id}: {why}"
    return list(warnings.values())


def _kind(id: str, version: str) -> str:
    """What builds of different versions have in common."""
    return id.removesuffix(f"-{version}")


def _usable(selected: Selected) -> Selected:
    """What was selected, unless that cannot be used. Raises NoUsableEngine."""
    id = selected.choice.build
    chosen = next((build for build in selected.builds if build.id == id), None)
    if chosen is None or chosen.refused:
        why = chosen.refused if chosen else "it is not among the candidates"
        raise NoUsableEngine(f"{selected.by} chose {id}: {why}", refused={id: why} if chosen else {})
    return selected
