"""Which phase is in force, and who says so: the first of eight levels that says anything, under the limits of those
before it.

1 `policy`, 2 `environment`, 3 `setting`, 4 `extension` (the hook `jan_rollout_phase`), 5 `demotion` (what went wrong
here lately), 6 `signed`, 7 `packaged`, 8 `default`; and `evidence`: what this machine has earned above the operator's
floor, as far as the operator's ceiling. Nothing is raised above what a level before it allows: a demotion caps all that
come after it, and a ceiling that is named at this machine (1 to 3) caps all that come after that. What the operator's
flags say when they have expired lowers the phase, but does not raise it above what they said when they were fresh.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from jan_core.types import Phase

from ..flags.known import PHASES
from ..flags.precedence import FlagAnswer, FlagLevel

__all__ = ["InForce", "Level", "Seen", "in_force", "lower", "one_down", "one_up"]

Level = Literal[FlagLevel, "extension", "demotion", "evidence"]

_AT_THIS_MACHINE: tuple[Level, ...] = ("policy", "environment", "setting")
_WHY: dict[Level, str] = {
    "policy": "the administrator's policy fixes it",
    "environment": "a variable of the environment asks for it",
    "setting": "the setting `registry.phase` asks for it",
    "signed": "the operator asks for it",
    "packaged": "this release was shipped with it",
    "default": "nobody asks for another",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What this machine remembers. `earned`: where its own evidence has brought it; `fresh`: the phase, but for
    demotions, while the operator's flags were last fresh; `cap`: no higher than that for now, because of `cause`."""

    earned: Phase = "fallback"
    fresh: Phase = "fallback"
    cap: Phase | None = None
    cause: str = ""


@dataclass(frozen=True, slots=True)
class InForce:
    """`pinned`: somebody at this machine decided, so that neither operator nor evidence counts. `undemoted`: what they
    would make it if nothing had gone wrong here."""

    phase: Phase
    level: Level
    reason: str
    undemoted: Phase
    pinned: bool = False


def in_force(floor: FlagAnswer, ceiling: FlagAnswer, extension: tuple[Phase, str] | None, seen: Seen) -> InForce:
    """`floor` and `ceiling`: the flags `registry.phase` and `registry.phase.ceiling`; `extension`: what an extension
    chose, and its reason."""
    found = _asked(floor, ceiling, extension, seen)
    most = cast(Phase, ceiling.value)
    if ceiling.level not in _AT_THIS_MACHINE or lower(found.phase, most) == found.phase:
        return found
    if found.level in _AT_THIS_MACHINE and _AT_THIS_MACHINE.index(found.level) <= _AT_THIS_MACHINE.index(ceiling.level):
        return found
    return InForce(most, ceiling.level, f"`{ceiling.name}` allows no more, while {found.reason}", most, pinned=True)


def _asked(floor: FlagAnswer, ceiling: FlagAnswer, extension: tuple[Phase, str] | None, seen: Seen) -> InForce:
    asked = cast(Phase, floor.value)
    if floor.level in _AT_THIS_MACHINE:
        return InForce(asked, floor.level, floor.note or _WHY[floor.level], asked, pinned=True)
    if extension is not None:
        return InForce(extension[0], "extension", extension[1], extension[0], pinned=True)
    allowed = lower(asked, seen.fresh) if floor.stale else asked
    reason = f"{_WHY[floor.level]} ({floor.reason})" if floor.level != "default" else _WHY["default"]
    if allowed != asked:
        reason = f"the operator asks for {asked}, but the flags have expired, and such do not promote"
    found = InForce(allowed, floor.level, reason, allowed)
    own = lower(seen.earned, cast(Phase, ceiling.value))
    if ceiling.stale:
        own = lower(own, seen.fresh)
    if lower(own, allowed) != own:
        found = InForce(own, "evidence", f"evidence seen here earned it, under a ceiling of {ceiling.value}", own)
    if seen.cap is not None and lower(found.phase, seen.cap) != found.phase:
        return InForce(seen.cap, "demotion", seen.cause, found.phase)
    return found


def lower(one: Phase, other: Phase) -> Phase:
    """The safer of two."""
    return PHASES[min(PHASES.index(one), PHASES.index(other))]


def one_down(phase: Phase) -> Phase:
    return PHASES[max(0, PHASES.index(phase) - 1)]


def one_up(phase: Phase) -> Phase:
    return PHASES[min(len(PHASES) - 1, PHASES.index(phase) + 1)]
