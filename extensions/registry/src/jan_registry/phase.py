"""The phase of the roll-out. Only `fallback` is served so far: the source's last valid list, else the built-in one."""

from __future__ import annotations

import time

from jan_core import Context
from jan_core.types import Evidence

from .catalogue import Catalogue
from .refresh import Refresher
from .shapes import PhaseAnswer

__all__ = ["current_phase"]


async def current_phase(ctx: Context, catalogue: Catalogue, refresher: Refresher) -> PhaseAnswer:
    """Ask the extensions which phase it is (`jan_rollout_phase`), and say what is served."""
    held = await catalogue.dynamic(catalogue.settings.url)
    age = time.time() - held.checked_at if held is not None else 0.0
    evidence = Evidence(requests=refresher.requests, errors=refresher.errors, age=max(0.0, age))
    outcome = await ctx.hooks.rollout_phase({}, evidence)
    choice = outcome.value if outcome is not None else None
    if choice is None:
        return PhaseAnswer("fallback", "nobody chose another")
    if choice.phase == "fallback":
        return PhaseAnswer("fallback", choice.reason)
    reason = f"{outcome.extension if outcome else ''} asks for {choice.phase}, which this version does not serve yet"
    return PhaseAnswer("fallback", f"{reason}: {choice.reason}", asked=choice.phase)
