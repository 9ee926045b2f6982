"""What the roll-out of this machine has come to: put together from what was observed and decided.

Reads the disk and writes nothing. Counts and times only; what is said of models are the ids of deviations, which stay
here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from msgspec import Struct, field

from jan_core import StorageError
from jan_core.types import Phase

from ..shapes import rfc3339
from .arm import Arm
from .compare import Deviation
from .decisions import Decision
from .export import Export, export
from .gates import Verdict, judge
from .observations import Entered, Observation, Pair, Row, Serve, Sync, percentile
from .replay import judges, replay

if TYPE_CHECKING:
    from .phase import Effective
    from .rollout import Rollout

__all__ = [
    "ArmFigures",
    "DayFigures",
    "DecisionLine",
    "PairFigures",
    "PhaseLine",
    "RolloutReport",
    "SyncFigures",
    "make",
]

DAY = 86_400
DECISIONS = 1_000
T = TypeVar("T", Pair, Serve)


class PhaseLine(Struct):
    """A phase, from `at` on. `percent`: of the machines that are served the dynamic list, in `mixed`."""

    at: str
    phase: Phase
    level: str
    percent: int
    reason: str


class ArmFigures(Struct):
    """What was served from one list: answers, those that failed, and microseconds (-1: unknown)."""

    arm: Arm
    answers: int
    errors: int
    p50: int
    p95: int


class SyncFigures(Struct):
    """How often the hub was asked and answered well, not at all, or was refused; `kinds` of refusals by count."""

    ok: int = 0
    unreachable: int = 0
    refused: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    last_ok: str = ""


class PairFigures(Struct, kw_only=True):
    """What the two lists said to the same questions. -1: unknown. `coverage` and `overlap` per 10,000: the newest, and
    the lowest that was seen; microseconds; `age` in seconds, the median. `counts` of deviations by kind and `examples`
    are those of the newest pair."""

    pairs: int = 0
    builtin_errors: int = 0
    dynamic_errors: int = 0
    conflicts: int = 0
    invalid: int = 0
    coverage: int = -1
    coverage_lowest: int = -1
    overlap: int = -1
    age: int = -1
    builtin_p50: int = -1
    builtin_p95: int = -1
    dynamic_p50: int = -1
    dynamic_p95: int = -1
    counts: dict[str, int] = field(default_factory=dict)
    examples: list[Deviation] = field(default_factory=list)


class DayFigures(Struct, kw_only=True):
    """One day, UTC. Times are of answers served and of those in the shadow, in microseconds; -1: none."""

    day: str
    builtin_p50: int
    builtin_p95: int
    dynamic_p50: int
    dynamic_p95: int
    coverage: int
    conflicts: int
    errors: int
    answers: int
    pairs: int
    syncs: int
    refused: int


class DecisionLine(Struct):
    """A decision. `replayed`: whether it comes out the same again (`replay.py`); "" when nobody asked."""

    number: int
    at: str
    from_phase: str
    to_phase: str
    reason: str
    replayed: Literal["", "same", "differs", "unknown"] = ""
    detail: str = ""


class RolloutReport(Struct, kw_only=True):
    """`at` and all times RFC 3339. `gate`: what the gate would say now. `decisions`: newest first. `replayed`: how many
    came out the same, differ, are unknown to this program. `html` and `export` only where they were asked for. `notes`:
    why there is nothing of what was observed, where the disk does not do."""

    at: str
    phase: Phase
    level: str
    reason: str
    since: str
    history: list[PhaseLine]
    arms: list[ArmFigures]
    syncs: SyncFigures
    pairs: PairFigures
    days: list[DayFigures]
    gate: Verdict
    decisions: list[DecisionLine]
    replayed: dict[str, int] | None = None
    html: str = ""
    export: Export | None = None
    notes: list[str] = field(default_factory=list)


def make(rollout: Rollout[Any], effective: Effective, now: float, *, again: bool, give: bool) -> RolloutReport:
    """The report, decisions replayed if `again`, with what may be handed on if `give`. Blocks.

    Where the disk does not do it says which phase is in force, and of what was observed nothing.
    """
    try:
        return _made(rollout, effective, now, again=again, give=give)
    except StorageError as error:
        return RolloutReport(
            at=rfc3339(now),
            phase=effective.phase,
            level=effective.level,
            reason=effective.reason,
            since=rfc3339(effective.since),
            history=[],
            arms=[_arm(arm, []) for arm in ("builtin", "dynamic")],
            syncs=SyncFigures(),
            pairs=PairFigures(),
            days=[],
            gate=judge(rollout.blind(now)),
            decisions=[],
            notes=[f"what was observed cannot be read: {error.message}"],
        )


def _made(rollout: Rollout[Any], effective: Effective, now: float, *, again: bool, give: bool) -> RolloutReport:
    seen = rollout.observations
    history, serves = seen.latest("phase"), seen.latest("serve")
    pairs, syncs = seen.latest("pair"), seen.latest("sync")
    decisions = rollout.decisions.latest(DECISIONS)
    lines = [_decision(one, again) for one in decisions]
    outcomes = [line.replayed for line in lines]
    return RolloutReport(
        at=rfc3339(now),
        phase=effective.phase,
        level=effective.level,
        reason=effective.reason,
        since=rfc3339(effective.since),
        history=[
            PhaseLine(rfc3339(row.at), row.seen.phase, row.seen.level, row.seen.percent, row.seen.reason)
            for row in reversed(history)
            if isinstance(row.seen, Entered)
        ],
        arms=[_arm(arm, _of(Serve, serves)) for arm in ("builtin", "dynamic")],
        syncs=_syncs(syncs),
        pairs=_pairs(_of(Pair, pairs)),
        days=_days(serves, pairs, syncs),
        gate=judge(rollout.inputs(now)),
        decisions=lines,
        replayed={name: outcomes.count(name) for name in ("same", "differs", "unknown")} if again else None,
        export=export(history, serves, pairs, now) if give else None,
    )


def _of(kind: type[T], rows: Sequence[Row]) -> list[T]:
    return [row.seen for row in rows if isinstance(row.seen, kind)]


def _decision(decision: Decision, again: bool) -> DecisionLine:
    result = replay(decision, judges()) if again else None
    return DecisionLine(
        decision.number,
        rfc3339(decision.at),
        decision.from_phase,
        decision.to_phase,
        decision.reason,
        result.outcome if result else "",
        result.detail if result else "",
    )


def _arm(arm: Arm, serves: list[Serve]) -> ArmFigures:
    own = [serve for serve in serves if serve.arm == arm]
    micros = [each for serve in own for each in serve.micros]
    answers, errors = sum(serve.count for serve in own), sum(serve.errors for serve in own)
    return ArmFigures(arm, answers, errors, percentile(micros, 50), percentile(micros, 95))


def _syncs(rows: Sequence[Row]) -> SyncFigures:
    figures = SyncFigures()
    for row in reversed(rows):
        if isinstance(row.seen, Sync):
            setattr(figures, row.seen.outcome, getattr(figures, row.seen.outcome) + 1)
            if row.seen.outcome == "refused":
                figures.kinds[row.seen.refused] = figures.kinds.get(row.seen.refused, 0) + 1
            elif row.seen.outcome == "ok":
                figures.last_ok = rfc3339(row.at)
    return figures


def _pairs(pairs: list[Pair]) -> PairFigures:
    """Newest first."""
    compared = [pair for pair in pairs if pair.coverage >= 0]
    warm = [pair for pair in pairs if not pair.cold]
    builtin = [pair.builtin_us for pair in warm if pair.builtin_us >= 0]
    dynamic = [pair.dynamic_us for pair in warm if pair.dynamic_us >= 0]
    newest = compared[0] if compared else Pair()
    return PairFigures(
        pairs=len(pairs),
        builtin_errors=sum(bool(pair.builtin_error) for pair in pairs),
        dynamic_errors=sum(bool(pair.dynamic_error) for pair in pairs),
        conflicts=sum(pair.conflicts for pair in compared),
        invalid=sum(pair.invalid for pair in compared),
        coverage=newest.coverage,
        coverage_lowest=min((pair.coverage for pair in compared), default=-1),
        overlap=newest.overlap,
        age=percentile([pair.age for pair in pairs if pair.age >= 0], 50),
        builtin_p50=percentile(builtin, 50),
        builtin_p95=percentile(builtin, 95),
        dynamic_p50=percentile(dynamic, 50),
        dynamic_p95=percentile(dynamic, 95),
        counts=newest.counts,
        examples=newest.examples,
    )


def _days(serves: Sequence[Row], pairs: Sequence[Row], syncs: Sequence[Row]) -> list[DayFigures]:
    by_day: dict[int, list[Observation]] = {}
    for row in (*serves, *pairs, *syncs):
        by_day.setdefault(row.at // DAY, []).append(row.seen)
    return [_day(day, by_day[day]) for day in sorted(by_day)]


def _day(day: int, seen: list[Observation]) -> DayFigures:
    micros: dict[Arm, list[int]] = {"builtin": [], "dynamic": []}
    served = [each for each in seen if isinstance(each, Serve)]
    pairs = [each for each in seen if isinstance(each, Pair)]
    syncs = [each for each in seen if isinstance(each, Sync)]
    for serve in served:
        micros[serve.arm] += serve.micros
    for pair in pairs:
        if pair.served != "builtin" and pair.builtin_us >= 0:
            micros["builtin"].append(pair.builtin_us)
        if pair.served != "dynamic" and pair.dynamic_us >= 0 and not pair.cold:
            micros["dynamic"].append(pair.dynamic_us)
    return DayFigures(
        day=rfc3339(max(1, day * DAY))[:10],
        builtin_p50=percentile(micros["builtin"], 50),
        builtin_p95=percentile(micros["builtin"], 95),
        dynamic_p50=percentile(micros["dynamic"], 50),
        dynamic_p95=percentile(micros["dynamic"], 95),
        coverage=min((pair.coverage for pair in pairs if pair.coverage >= 0), default=-1),
        conflicts=sum(max(0, pair.conflicts) for pair in pairs),
        errors=sum(serve.errors for serve in served) + sum(bool(pair.dynamic_error) for pair in pairs),
        answers=sum(serve.count for serve in served),
        pairs=len(pairs),
        syncs=sum(sync.outcome == "ok" for sync in syncs),
        refused=sum(sync.outcome == "refused" for sync in syncs),
    )
