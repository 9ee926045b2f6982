"""Which engine build this machine uses: what the hooks propose, what they choose, and why each other one was
not taken.

Nothing is installed here (`engines/installer.py`). The choice is made anew each time it is needed; it is
cheap, and a setting or an extension may have changed it.
"""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
from msgspec import Struct

from jan_core import Context
from jan_core.types import BuildChoice, EngineBuild, Hardware

from .engines import choice, installed
from .engines.errors import EngineNotFound
from .engines.hardware import detect
from .errors import NoUsableEngine

__all__ = ["EngineSelection", "Selected"]


class Selected(Struct, frozen=True):
    """The outcome. `by` is the extension that chose, or `person`; `builds` are all candidates, refused ones as well."""

    hardware: Hardware
    builds: list[EngineBuild]
    choice: BuildChoice
    by: str

    @property
    def build(self) -> EngineBuild:
        return next(build for build in self.builds if build.id == self.choice.build)


class EngineSelection:
    """Asks the house's hooks. `engines`: the folder of the installed builds."""

    def __init__(self, ctx: Context, engines: Path) -> None:
        self._ctx = ctx
        self._engines = engines

    async def candidates(self) -> tuple[Hardware, list[EngineBuild]]:
        """This machine, and every build for it, each id once: those that somebody proposes, marked when installed, and
        those of other versions that are installed. One that is set aside is refused with the reason.
        """
        hardware = await anyio.to_thread.run_sync(detect)
        proposed = (await self._ctx.hooks.engine_builds(hardware)).values
        engines = await anyio.to_thread.run_sync(installed.list_installed, self._engines)
        decided = await anyio.to_thread.run_sync(choice.read, self._engines)
        here = {engine.id: engine.record for engine in engines}
        builds: dict[str, EngineBuild] = {}
        for build in (build for builds in proposed for build in builds):
            build.installed = build.id in here
            builds.setdefault(build.id, build)
        why = {_kind(build.id, build.version): build.refused for build in builds.values()}
        for id, record in here.items():
            if id not in builds:
                refused = why.get(_kind(id, record.version), "")
                builds[id] = EngineBuild(id, record.variant, record.version, installed=True, refused=refused)
        for build in builds.values():
            if not build.refused and not build.installed:
                build.refused = decided.refusal(build.id)
        return hardware, list(builds.values())

    async def find(self, id: str) -> EngineBuild:
        """The candidate of this id. Raises EngineNotFound with the ids there are."""
        _, builds = await self.candidates()
        for build in builds:
            if build.id == id:
                return build
        known = [build.id for build in builds]
        raise EngineNotFound(f"there is no engine build {id!r}; known: {', '.join(known)}", build=id, known=known)

    async def select(self) -> Selected:
        """The build to use: the one a person chose, else what the hooks choose. A choice that is refused or unknown is
        an error: nothing else is taken in its place.

        Raises NoUsableEngine.
        """
        hardware, builds = await self.candidates()
        decided = await anyio.to_thread.run_sync(choice.read, self._engines)
        if decided.use:
            return _usable(Selected(hardware, builds, BuildChoice(decided.use, "it was chosen by hand"), "person"))
        outcome = await self._ctx.hooks.select_engine_build(hardware, builds)
        if outcome is None or outcome.value is None:
            refused = {build.id: build.refused for build in builds if build.refused}
            raise NoUsableEngine("no engine build can be used on this machine", refused=refused)
        return _usable(Selected(hardware, builds, outcome.value, outcome.extension))


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
