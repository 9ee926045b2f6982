"""This machine's gate: whether its phase of the roll-out goes one step on, one step back, or stays.

Pure: phase, evidence, thresholds and time in, a verdict out, whole numbers only. The same inputs give the same verdict,
bit for bit, for as long as the version of the gate is the same; `replay.py` holds stored decisions to that. It knows
no database, and does not know whether anybody obeys.

What keeps a step from being made, and what takes one back, are different things: missing data is a criterion that is
not met, but never a defect; a fetch that was refused (a bad signature, a rollback) keeps from promotion, but never
demotes, or whoever sits on the network could take the list away.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from jan_core.types import Phase

__all__ = ["VERSION", "Criterion", "Evidence", "Inputs", "Thresholds", "Verdict", "judge"]

VERSION = 1
"""Of `judge`. Raise it with every change that could give another verdict for the same inputs, and keep the old one for
`replay.py`."""

DAY = 86_400
MISSING = -1


class Evidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was seen since the phase began, as whole numbers; -1 where nothing was.

    `syncs` and `pairs` are good ones in a row, `…_seconds` from the first to the last of them, `refusals` and `failing`
    bad ones that no good one has followed. The rest is of the last paired observations: `coverage` the lowest, per
    10,000; `conflicts` in the newest `Thresholds.window` of them; the 95th percentile of the answers' time in
    microseconds; `age` the median, in seconds. `slow`: how many of the very last found the dynamic list slow
    (`Thresholds.slow_percent`). `errors`: answers that it failed to give, one after the other until now, while the
    built-in one did.
    """

    syncs: int = 0
    sync_seconds: int = 0
    refusals: int = 0
    pairs: int = 0
    pair_seconds: int = 0
    failing: int = 0
    coverage: int = MISSING
    conflicts: int = MISSING
    dynamic_p95: int = MISSING
    builtin_p95: int = MISSING
    slow: int = 0
    age: int = MISSING
    errors: int = 0


class Thresholds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Seconds, microseconds, shares per 10,000 and percent of the built-in list's time.

    60 good ones in a row bound the share of failures at 5 % with 95 % confidence (the rule of three). Below `floor`
    times are not held against each other: a list in memory is not slower in a way that anybody notices because
    another one, of five models, took a tenth of a millisecond. Slow is a 95th percentile over `window` pairs beyond
    `slow_percent` of the built-in list's and beyond `p95`, what a person might notice; `slow` such windows in a row are
    a defect, so that a machine that was busy for a moment, as one that infers often is, demotes nothing.
    """

    syncs: int = 20
    sync_seconds: int = 3 * DAY
    pairs: int = 60
    pair_seconds: int = 7 * DAY
    coverage: int = 9_900
    conflicts: int = 0
    p95: int = 50_000
    p95_percent: int = 120
    floor: int = 5_000
    age: int = 3_600
    errors: int = 3
    slow: int = 20
    slow_percent: int = 200
    window: int = 20


class Criterion(Struct, frozen=True, kw_only=True):
    """`value` held against `threshold`; -1 is a value that nobody has seen, and is not met."""

    name: str
    value: int
    bound: Literal["at least", "at most"]
    threshold: int
    met: bool


class Inputs(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a verdict depends on. `now` in seconds since the epoch. `pinned`: somebody at this machine chose
    the phase, and it stays; `obstacle`: why evidence may not promote, "" when it may."""

    gate: int
    phase: Phase
    now: int
    pinned: bool
    obstacle: str
    evidence: Evidence
    thresholds: Thresholds


class Verdict(Struct, frozen=True, kw_only=True):
    """`phase` is the one to be in. `criteria`: what the next step needs; `defects`: limits that were overstepped."""

    action: Literal["promote", "stay", "demote"]
    phase: Phase
    reason: str
    criteria: list[Criterion] = field(default_factory=list)
    defects: list[Criterion] = field(default_factory=list)


def judge(inputs: Inputs) -> Verdict:
    """One step at most, and a defect before any promotion."""
    before: dict[Phase, Phase] = {"mixed": "fallback", "dynamic": "mixed"}
    after: dict[Phase, Phase] = {"fallback": "mixed", "mixed": "dynamic"}
    criteria, defects = _criteria(inputs), _defects(inputs)
    phase = inputs.phase
    if defects and phase in before and not inputs.pinned:
        reason = _overstepped(defects)
        return Verdict(action="demote", phase=before[phase], reason=reason, criteria=criteria, defects=defects)
    lacking = [criterion for criterion in criteria if not criterion.met]
    reason = f"not met: {_names(lacking)}" if lacking else ""
    reason = inputs.obstacle or reason or (_overstepped(defects) if defects else "")
    if reason or phase not in after:
        reason = reason or "it is the last phase"
        return Verdict(action="stay", phase=phase, reason=reason, criteria=criteria, defects=defects)
    return Verdict(action="promote", phase=after[phase], reason="every criterion is met", criteria=criteria)


def _criteria(inputs: Inputs) -> list[Criterion]:
    seen, limit = inputs.evidence, inputs.thresholds
    if inputs.phase == "fallback":
        return [
            _at_least("syncs", seen.syncs, limit.syncs),
            _at_least("span of syncs", seen.sync_seconds, limit.sync_seconds),
            _at_most("refused syncs", seen.refusals, 0),
            _at_most("conflicts", seen.conflicts, limit.conflicts),
        ]
    if inputs.phase == "dynamic":
        return []
    relative = max(limit.floor, seen.builtin_p95 * limit.p95_percent // 100) if seen.builtin_p95 >= 0 else MISSING
    return [
        _at_least("pairs", seen.pairs, limit.pairs),
        _at_least("span of pairs", seen.pair_seconds, limit.pair_seconds),
        _at_most("failures without recovery", seen.failing, 0),
        _at_most("refused syncs", seen.refusals, 0),
        _at_least("coverage", seen.coverage, limit.coverage),
        _at_most("conflicts", seen.conflicts, limit.conflicts),
        _at_most("p95", seen.dynamic_p95, limit.p95),
        _at_most("p95 beside the built-in list", seen.dynamic_p95, relative),
        _at_most("age", seen.age, limit.age),
    ]


def _defects(inputs: Inputs) -> list[Criterion]:
    seen, limit = inputs.evidence, inputs.thresholds
    found = [
        _at_most("conflicts", seen.conflicts, limit.conflicts),
        _at_most("errors in a row", seen.errors, limit.errors - 1),
        _at_most("slow pairs in a row", seen.slow, limit.slow - 1),
    ]
    return [criterion for criterion in found if not criterion.met and criterion.value != MISSING]


def _at_least(name: str, value: int, threshold: int) -> Criterion:
    met = value >= threshold
    return Criterion(name=name, value=value, bound="at least", threshold=threshold, met=met)


def _at_most(name: str, value: int, threshold: int) -> Criterion:
    met = MISSING < value <= threshold
    return Criterion(name=name, value=value, bound="at most", threshold=threshold, met=met)


def _overstepped(defects: list[Criterion]) -> str:
    return ", ".join(f"{defect.name}: {defect.value}, {defect.bound} {defect.threshold}" for defect in defects)


def _names(criteria: list[Criterion]) -> str:
    return ", ".join(criterion.name for criterion in criteria)
