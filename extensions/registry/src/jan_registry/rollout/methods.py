"""The method `registry.report`: what the roll-out has come to, as data, as a page, or as counts to hand on."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from msgspec import Struct

from jan_core import method

from .phase_methods import PhaseServices
from .report import RolloutReport
from .rollout import Rollout

__all__ = ["ReportQuery", "RolloutMethods"]


class ReportQuery(Struct, forbid_unknown_fields=True):
    """`replay`: make every stored decision again and compare; `html`: add a page that needs nothing else; `export`: add
    the counts that may be handed to the operator. All of it stays on this machine unless somebody passes it on."""

    replay: bool = False
    html: bool = False
    export: bool = False


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

    def _report(self, params: ReportQuery, now: float) -> RolloutReport:
        from .page import page
        from .report import make

        effective = self.phase_services.keeper.effective(now)
        report = make(self.rollout, effective, now, again=params.replay or params.html, give=params.export)
        if params.html:
            report.html = page(report, now)
        return report
