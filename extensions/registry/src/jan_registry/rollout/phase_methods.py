"""The methods `registry.phase` and `registry.flags`: which phase it is, who says so, and what every flag is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio.to_thread

from jan_core import Empty, StorageError, method

from .shapes import FlagTable, PhaseAnswer

if TYPE_CHECKING:
    from ..flags.precedence import FlagBoard
    from .gates import Criterion
    from .phase import Effective, PhaseKeeper

__all__ = ["PhaseMethods", "PhaseServices"]


@dataclass
class PhaseServices:
    """What the methods are about. `ready`: has the lists read, and other extensions asked, if nobody has done so yet;
    `listed`: whether there is a list that was verified or shipped; `criteria`: what the next step needs, which may read
    the disk."""

    keeper: PhaseKeeper
    flags: FlagBoard
    ready: Callable[[], Awaitable[object]]
    listed: Callable[[], bool]
    criteria: Callable[[Effective], list[Criterion]]
    clock: Callable[[], float]


class PhaseMethods:
    """Handlers. `phase_services` is set when the extension is activated, before any call can come."""

    phase_services: PhaseServices

    @method("registry.phase")
    async def phase(self, params: Empty) -> PhaseAnswer:
        """Which phase of the roll-out it is, who decided that, which list is served, and what the next step needs."""
        await self.phase_services.ready()
        return await anyio.to_thread.run_sync(self._phase)

    @method("registry.flags")
    async def flags(self, params: Empty) -> FlagTable:
        """Every flag this program reads: its value, and who decided it and why. Nothing is asked over the network."""
        await self.phase_services.ready()
        return await anyio.to_thread.run_sync(self._flags)

    def _phase(self) -> PhaseAnswer:
        services, now = self.phase_services, self.phase_services.clock()
        answer = services.keeper.answer(now, listed=services.listed())
        try:
            answer.criteria = services.criteria(services.keeper.effective(now))
        except StorageError as error:
            answer.notes.append(f"what the next step needs cannot be told: {error.message}")
        return answer

    def _flags(self) -> FlagTable:
        services, now = self.phase_services, self.phase_services.clock()
        return FlagTable(services.flags.all(now), services.flags.notes(now))
