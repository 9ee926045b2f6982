"""The methods `registry.report` (what the roll-out has come to on this machine, as data, as a page, as counts to hand
on) and `registry.operator.fleet` (what the operator makes of many such counts)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from msgspec import Meta, Struct, field

from jan_core import InvalidParams, method

from .fleet_report import FleetAnswer, judged
from .report import RolloutReport

if TYPE_CHECKING:
    from .phase_methods import PhaseServices
    from .rollout import Rollout

__all__ = ["FleetQuery", "ReportQuery", "RolloutMethods"]


class ReportQuery(Struct, forbid_unknown_fields=True):
    """`replay`: make every stored decision again and compare; `html`: add a page that needs nothing else; `export`: add
    the counts that may be handed to the operator. All of it stays on this machine unless somebody passes it on."""

    replay: bool = False
    html: bool = False
    export: bool = False


class FleetQuery(Struct, forbid_unknown_fields=True):
    """`folder`: where machines' exports lie, one `.json` file each. `margin`: how many more failures per 10,000 units
    are too many. `steps`: percentages of machines that are served the dynamic list."""

    folder: Annotated[str, Meta(min_length=1, max_length=4096)]
    margin: Annotated[int, Meta(ge=1, le=5_000)] = 100
    steps: Annotated[list[Annotated[int, Meta(ge=1, le=100)]], Meta(min_length=2, max_length=20)] = field(
        default_factory=lambda: [5, 25, 50, 100]
    )


class RolloutMethods:
    """Handlers. `rollout` and `phase_services` are set when the extension is activated, before any call can come."""

    rollout: Rollout[Any]
    phase_services: PhaseServices

    @method("registry.report")
    async def report(self, params: ReportQuery) -> RolloutReport:
        """Say what the roll-out on this machine has come to: phases, latency, coverage, conflicts, errors, age, what
        the next step still needs, and every decision."""
        await self.phase_services.ready()
        await self.rollout.flush()
        return await anyio.to_thread.run_sync(self._report, params, self.phase_services.clock())

    @method("registry.operator.fleet")
    async def fleet(self, params: FleetQuery) -> FleetAnswer:
        """Judge a roll-out from the counts that machines' people handed in: how many machines may have the dynamic list
        next. Changes nothing; the percentage is raised with `registry.operator.flag`."""
        folder = Path(params.folder)
        if not folder.is_absolute():
            raise InvalidParams("a folder's path must be absolute", path="$.folder")
        if params.steps != sorted(set(params.steps)):
            raise InvalidParams("steps must rise", path="$.steps")
        return await anyio.to_thread.run_sync(judged, folder, params.margin, params.steps)

    def _report(self, params: ReportQuery, now: float) -> RolloutReport:
        from .page import page
        from .report import make

        effective = self.phase_services.keeper.effective(now)
        report = make(self.rollout, effective, now, again=params.replay or params.html, give=params.export)
        if params.html:
            report.html = page(report, now)
        return report
