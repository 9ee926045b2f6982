"""The methods `engines.*`: what could run here, why, and installing, switching, going back and removing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from msgspec.structs import replace

from jan_core import Call, Empty, InvalidParams, method
from jan_core.types import EngineBuild

from .engine_shapes import (
    EngineChanged,
    EngineId,
    EngineList,
    Explanation,
    InstallEngine,
    RollbackEngine,
    SetAside,
    UseEngine,
    Verdict,
)
from .engines.errors import EngineInstallFailed, EngineInUse, EngineNotFound
from .engines.record import EngineRecord, InstalledEngine
from .errors import NoUsableEngine
from .services import Services, install_report, report_to
from .variants import model_of

if TYPE_CHECKING:
    from .engines.choice import Choice
    from .selection import Selected

__all__ = ["EngineMethods"]


class EngineMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @method("engines.list", events={"engines.changed": EngineChanged})
    async def list(self, params: Empty) -> EngineList:
        """List the engine builds for this machine, refused ones with the reason, what is installed, what can be gone
        back to, and what was set aside and why.
        """
        from .engines import choice, installed

        engines = self.services.engines
        _, builds = await self.services.selection.candidates()
        here = await anyio.to_thread.run_sync(installed.list_installed, engines)
        earlier = await anyio.to_thread.run_sync(installed.list_earlier, engines)
        decided = await anyio.to_thread.run_sync(choice.read, engines)
        return EngineList(
            builds,
            [engine.record for engine in here],
            [engine.record for engine in earlier if engine.name not in decided.aside],
            _set_aside(decided, earlier),
            decided.use,
        )

    @method("engines.explain", errors=[NoUsableEngine])
    async def explain(self, params: Empty) -> Explanation:
        """Say which build is used on this machine, and for each candidate why it was taken or not.

        The libraries of an installed choice are hashed whole, to find damage.
        """
        from .engines import choice, installed

        engines = self.services.engines
        decided = await anyio.to_thread.run_sync(choice.read, engines)
        earlier = await anyio.to_thread.run_sync(installed.list_earlier, engines)
        selected = await self.services.selection.select(fresh=True)
        engine = await anyio.to_thread.run_sync(installed.find, self.services.engines, selected.build.id)
        damaged = await anyio.to_thread.run_sync(installed.damage, engine) if engine else []
        return Explanation(
            build=selected.choice.build,
            reason=selected.choice.reason,
            by=selected.by,
            candidates=[_verdict(build, selected) for build in selected.builds],
            hardware=selected.hardware,
            damaged=damaged,
            warnings=selected.warnings,
            set_aside=_set_aside(decided, earlier),
        )

    @method("engines.install", errors=[EngineInstallFailed, EngineNotFound, NoUsableEngine])
    async def install(self, params: InstallEngine, call: Call) -> EngineRecord:
        """Install a build now rather than at the first use of a model; answers when it is checked and in
        place.

        An installed one is left as it is, except that a wheel file always installs anew; the generation before is kept.
        One that was set aside is tried again. Cancelled, it goes on where it was when it is called again.
        """
        services = self.services
        if params.wheel and not Path(params.wheel).is_absolute():
            raise InvalidParams("a wheel's path must be absolute", path="$.wheel")
        if params.sha256 and not params.wheel:
            raise InvalidParams("a hash is for a wheel file; what an index offers has its own", path="$.sha256")
        wheel = Path(params.wheel) if params.wheel else None
        build = await self._wanted(params.id, wheel)
        report = install_report(report_to(call))
        engine = await services.installer().ensure(build, report, wheel=wheel, sha256=params.sha256)
        services.engine_changed(engine.id, True)
        return engine.record

    @method("engines.use", errors=[EngineNotFound, NoUsableEngine])
    async def use(self, params: UseEngine) -> Explanation:
        """Use this installed build from the next load of a model on; `id` empty: let the house choose again.

        One that was set aside is used again. Loaded models stay on theirs.
        """
        from .engines import choice, installed

        engines = self.services.engines
        if params.id:
            if not await anyio.to_thread.run_sync(installed.generations, engines, params.id):
                known = [each.id for each in await anyio.to_thread.run_sync(installed.list_installed, engines)]
                message = f"the engine build {params.id!r} is not installed; install it first"
                raise EngineNotFound(message, build=params.id, known=known)
            build = await self._wanted(params.id)
            if build.refused:
                raise NoUsableEngine(f"{build.id}: {build.refused}", refused={build.id: build.refused})

        def edit(decided: choice.Choice) -> None:
            decided.use = params.id
            decided.take_back(params.id)

        await anyio.to_thread.run_sync(choice.change, engines, edit)
        explanation: Explanation = await self.explain(Empty())
        self.services.engine_changed(explanation.build, True)
        return explanation

    @method("engines.rollback", errors=[EngineNotFound, NoUsableEngine])
    async def rollback(self, params: RollbackEngine) -> EngineRecord:
        """Go back to what was used before this build (empty: the one in use): its generation before, which then counts
        as the better one, else the build that loaded a model last before it. From the next load of a model on.
        """
        from .engines import rollback

        id = params.id or (await self.services.selection.select()).build.id
        _, builds = await self.services.selection.candidates()
        usable = [build.id for build in builds if not build.refused]
        engine = await anyio.to_thread.run_sync(rollback.go_back, self.services.engines, id, usable)
        self.services.engine_changed(engine.id, True)
        return engine.record

    @method("engines.remove", errors=[EngineNotFound, EngineInUse])
    async def remove(self, params: EngineId) -> Empty:
        """Remove an installed build, all its generations, and what is kept of an unfinished installation. Refused while
        a model runs on it or is being loaded on it. If a person chose it, the house chooses again; if a person went
        back from it, that counts no more.
        """
        from .engines import choice, installed

        engines = self.services.engines
        async with self.services.engine_use.holds.removal(params.id) as loading:
            running = [model for model, engine in self.services.engine_of.items() if engine == params.id]
            if models := [*dict.fromkeys(model_of(each) for each in (*running, *loading))]:
                message = f"{params.id} is used by {', '.join(models)}; unload it first"
                raise EngineInUse(message, build=params.id, models=models)
            await anyio.to_thread.run_sync(installed.remove, engines, params.id)
        await anyio.to_thread.run_sync(choice.change, engines, lambda decided: decided.removed(params.id))
        self.services.engine_changed(params.id, False)
        return Empty()

    async def _wanted(self, id: str, wheel: Path | None = None) -> EngineBuild:
        """The build a person means. That one was set aside is no reason against it any more: the person knows."""
        from .engines import choice

        build = await self.services.selection.find(id) if id else (await self.services.selection.select()).build
        decided = await anyio.to_thread.run_sync(choice.read, self.services.engines)
        if build.refused == decided.refusal(build.id):
            build = replace(build, refused="")
        if wheel is None or id:
            return build
        from .engines.diagnosis import AttemptFailed
        from .engines.wheels import version_in

        try:
            version = version_in(wheel)
        except AttemptFailed as failure:
            raise EngineInstallFailed(str(failure), build=build.id, reason=failure.reason) from None
        kind = build.id.removesuffix(f"-{build.version}")
        return replace(build, id=f"{kind}-{version}", version=version)


def _set_aside(decided: Choice, earlier: Iterable[InstalledEngine]) -> list[SetAside]:
    there = {engine.name: engine.record.generation for engine in earlier}
    return [
        SetAside(entry.id, there.get(name, 0), entry.reason, entry.by, entry.at)
        for name, entry in decided.aside.items()
    ]


def _verdict(build: EngineBuild, selected: Selected) -> Verdict:
    if build.id == selected.choice.build:
        return Verdict(build.id, "chosen", selected.choice.reason, build.installed)
    if build.refused:
        return Verdict(build.id, "refused", build.refused, build.installed)
    held = build.doubt or ("" if build.installed else build.needs)
    reason = held or f"{build.note or 'it could be used'}; {selected.choice.build} was preferred"
    return Verdict(build.id, "usable", reason, build.installed)
