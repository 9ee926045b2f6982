"""The methods `engines.*`: what could run here, why, and installing and removing builds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from jan_core import Call, Empty, InvalidParams, method
from jan_core.types import EngineBuild

from .engines.errors import EngineInstallFailed, EngineInUse, EngineNotFound
from .engines.record import EngineRecord
from .errors import NoUsableEngine
from .services import Services, install_report, report_to
from .shapes import EngineChanged, EngineId, EngineList, Explanation, InstallEngine, Verdict

if TYPE_CHECKING:
    from .selection import Selected

__all__ = ["EngineMethods"]


class EngineMethods:
    """Handlers. `services` is set when the extension is activated, before any call can come."""

    services: Services

    @method("engines.list", events={"engines.changed": EngineChanged})
    async def list(self, params: Empty) -> EngineList:
        """List the engine builds for this machine, refused ones with the reason, and what is installed."""
        from .engines import installed

        _, builds = await self.services.selection.candidates()
        here = await anyio.to_thread.run_sync(installed.list_installed, self.services.engines)
        return EngineList(builds, [engine.record for engine in here])

    @method("engines.explain", errors=[NoUsableEngine])
    async def explain(self, params: Empty) -> Explanation:
        """Say which build is used on this machine, and for each candidate why it was taken or not.

        The libraries of an installed choice are hashed whole, to find damage.
        """
        from .engines import installed

        selected = await self.services.selection.select()
        engine = await anyio.to_thread.run_sync(installed.find, self.services.engines, selected.build.id)
        damaged = await anyio.to_thread.run_sync(installed.damage, engine) if engine else []
        return Explanation(
            build=selected.choice.build,
            reason=selected.choice.reason,
            by=selected.by,
            candidates=[_verdict(build, selected) for build in selected.builds],
            hardware=selected.hardware,
            damaged=damaged,
        )

    @method("engines.install", errors=[EngineInstallFailed, EngineNotFound, NoUsableEngine])
    async def install(self, params: InstallEngine, call: Call) -> EngineRecord:
        """Install a build now rather than at the first use of a model; answers when it is checked and in
        place.

        An installed one is left as it is, except that a wheel file always installs anew.
        """
        services = self.services
        if params.wheel and not Path(params.wheel).is_absolute():
            raise InvalidParams("a wheel's path must be absolute", path="$.wheel")
        build = await self._wanted(params.id)
        if params.wheel:
            self._refuse_when_used(build.id)
        report = install_report(report_to(call))
        wheel = Path(params.wheel) if params.wheel else None
        engine = await services.installer().ensure(build, report, wheel=wheel)
        services.pool.forget_all()  # loads may have failed for want of it
        services.ctx.emit("engines.changed", {"id": engine.id, "installed": True})
        return engine.record

    @method("engines.remove", errors=[EngineNotFound, EngineInUse])
    async def remove(self, params: EngineId) -> Empty:
        """Remove an installed build. Refused while a loaded model runs on it."""
        from .engines import installed

        self._refuse_when_used(params.id)
        await anyio.to_thread.run_sync(installed.remove, self.services.engines, params.id)
        self.services.ctx.emit("engines.changed", {"id": params.id, "installed": False})
        return Empty()

    async def _wanted(self, id: str) -> EngineBuild:
        if id:
            return await self.services.selection.find(id)
        return (await self.services.selection.select()).build

    def _refuse_when_used(self, build: str) -> None:
        models = [model for model, engine in self.services.engine_of.items() if engine == build]
        if models:
            raise EngineInUse(f"{build} is used by {', '.join(models)}; unload it first", build=build, models=models)


def _verdict(build: EngineBuild, selected: Selected) -> Verdict:
    if build.id == selected.choice.build:
        return Verdict(build.id, "chosen", selected.choice.reason, build.installed)
    if build.refused:
        return Verdict(build.id, "refused", build.refused, build.installed)
    return Verdict(build.id, "usable", "another build was preferred", build.installed)
