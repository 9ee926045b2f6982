"""Results of the methods about the roll-out's phase and flags."""

from __future__ import annotations

from msgspec import Struct, field

from jan_core.types import Phase

from ..flags.precedence import FlagAnswer
from .arm import Arm
from .gates import Criterion
from .inforce import Level

__all__ = ["FlagTable", "PhaseAnswer"]


class PhaseAnswer(Struct, kw_only=True):
    """The phase of the roll-out that is in force, and why.

    `level`: who decided it: `policy` (the administrator), `environment`, `setting`, `extension`, `demotion` (something
    went wrong here), `evidence` (this machine earned it), `signed` (the operator), `packaged` (this release) or
    `default`. `asked`: what the flag `registry.phase` says, and at which level. `ceiling`: how far evidence may
    promote. `since`: RFC 3339, "" when it was never another. `arm`: which list is served. `bucket`: this machine's, 0
    to 9999, in the phase `mixed`: below `percent` times 100 it is served the dynamic list. `shadow`: whether the other
    arm is measured. `demoted_to`, `demoted_until` and `cause`: the local demotion that holds, if one does. `stale`: the
    operator's flags have expired. `criteria`: what the next step up needs, as far as it is judged here.
    """

    phase: Phase
    level: Level
    reason: str
    asked: Phase
    asked_level: Level
    ceiling: Phase
    since: str
    arm: Arm
    bucket: int | None
    percent: int
    shadow: bool
    demoted_to: Phase | None
    demoted_until: str
    cause: str
    stale: bool
    criteria: list[Criterion] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class FlagTable(Struct):
    """Every flag this program reads, by name. `notes`: what was said at this machine and could not be used."""

    flags: dict[str, FlagAnswer]
    notes: list[str]
