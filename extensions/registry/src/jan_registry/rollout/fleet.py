"""The operator's gate: whether the next share of all machines gets the candidate, from counts that were volunteered.

Pure: a state, the counts of one more period, and thresholds give the next state and a verdict; the same reports give
the same decisions, bit for bit. It knows no machine, no file and no clock, and changes no flag: raising the signed
percentage is the operator's deed (`jan registry flag`).

One unit is one machine in one period, and failed when the list failed it at least once. The evidence of a step begins
anew with the step, so that a candidate that only fails at scale is found at the step where it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from .arm import Arm
from .evalue import Tally, inferiority_refuted, odds, worse
from .export import DAY, Export

__all__ = ["Fleet", "FleetThresholds", "FleetVerdict", "Period", "advance", "begin", "periods", "replay"]

Count = Annotated[int, Meta(ge=0)]


class FleetThresholds(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`steps`: percentages of machines that have the candidate. A step takes at least `seconds` and `units` in each
    arm. `margin`: how many more failures per 10,000 are too many; promotion needs evidence against that at an error of
    one in `promote_odds`, a failed check evidence of being worse at all at one in `harm_odds`. `checks`: that many
    failed checks in a row go one step back. `skew` is the chi-square (one degree of freedom, thousandths) beyond which
    the arms' sizes cannot be those of the percentage: 10,828 is p < 0.001."""

    steps: tuple[int, ...] = (5, 25, 50, 100)
    seconds: int = 86_400
    units: int = 300
    margin: Annotated[int, Meta(ge=1, le=5_000)] = 100
    promote_odds: Annotated[int, Meta(ge=2)] = 100
    harm_odds: Annotated[int, Meta(ge=2)] = 100
    checks: int = 2
    skew: int = 10_828


class Period(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was reported of the time since the last check, which ends `at` (seconds since the epoch). An arm that nobody
    reported is missing data, and a failed check. `percent`: of the machines that were to have the candidate then, -1 if
    nobody says: what the gate had decided."""

    at: int
    percent: int = -1
    control: Tally = Tally()
    candidate: Tally = Tally()


class Fleet(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a roll-out stands. `step` is a place in the thresholds' steps; -1: nobody has the candidate any more.

    `control` and `candidate` are counts of this step, `before` those of the control in earlier periods of any step;
    `safe` and `harm` are logarithms of e-values in millionths.
    """

    step: int = 0
    since: int = 0
    failed: int = 0
    control: Tally = Tally()
    candidate: Tally = Tally()
    before: Tally = Tally()
    safe: int = 0
    harm: int = 0
    stopped: str = ""

    def percent(self, thresholds: FleetThresholds) -> int:
        return thresholds.steps[self.step] if self.step >= 0 else 0


class FleetVerdict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`stop`: the counts cannot be trusted, or there is no step to go back to; a person has to look."""

    at: int
    action: Literal["promote", "stay", "back", "stop"]
    percent: int
    reason: str


def periods(exports: Iterable[Export]) -> list[Period]:
    """One period a day, from the first day that anybody reported to the last; a day that nobody reported is one with
    nothing in it. Of a day on which machines were at several percentages, that counts which most of them were at."""
    found: dict[int, dict[int, dict[Arm, Tally]]] = {}
    for one in exports:
        for day in {day.day: day for day in one.days}.values():
            tallies = found.setdefault(day.day, {}).setdefault(day.percent, {"builtin": Tally(), "dynamic": Tally()})
            tallies[day.arm] += Tally(1, int(day.failed))
    return [_period(day, found.get(day, {})) for day in (range(min(found), max(found) + 1) if found else ())]


def _period(day: int, found: dict[int, dict[Arm, Tally]]) -> Period:
    at = (day + 1) * DAY
    if not found:
        return Period(at=at)
    percent = max(found, key=lambda percent: (sum(tally.units for tally in found[percent].values()), percent))
    arms = found[percent]
    return Period(at=at, percent=percent, control=arms["builtin"], candidate=arms["dynamic"])


def begin(at: int) -> Fleet:
    """The first step begins."""
    return Fleet(since=at)


def advance(fleet: Fleet, period: Period, thresholds: FleetThresholds) -> tuple[Fleet, FleetVerdict]:
    """One check. Nothing more happens once it stopped or everybody has the candidate."""
    last = len(thresholds.steps) - 1
    if fleet.stopped or fleet.step >= last:
        return fleet, _verdict(fleet, period, thresholds, "stay", fleet.stopped or "everybody has it")
    if period.percent not in (-1, fleet.percent(thresholds)):
        reason = f"it does not count: machines were at {period.percent} %, not at {fleet.percent(thresholds)} %"
        return fleet, _verdict(fleet, period, thresholds, "stay", reason)
    missing = not period.control.units or not period.candidate.units
    now = fleet if missing else _counted(fleet, period, thresholds)
    if _skewed(now, thresholds):
        reason = f"{now.candidate.units} of {now.candidate.units + now.control.units} units have the candidate, "
        return _stop(now, period, thresholds, reason + f"which {now.percent(thresholds)} % cannot be")
    if missing or now.harm >= odds(thresholds.harm_odds):
        why = "an arm was not reported" if missing else "the candidate fails more often"
        now = replace(now, failed=now.failed + 1)
        if now.failed < thresholds.checks:
            return now, _verdict(now, period, thresholds, "stay", f"failed check {now.failed}: {why}")
        if now.step == 0:
            return _stop(now, period, thresholds, why)
        now = _step(now, now.step - 1, period)
        return now, _verdict(now, period, thresholds, "back", why)
    now = replace(now, failed=0)
    lacking = _lacking(now, period, thresholds)
    if lacking:
        return now, _verdict(now, period, thresholds, "stay", lacking)
    now = _step(now, now.step + 1, period)
    return now, _verdict(now, period, thresholds, "promote", "every criterion is met")


def replay(start: int, reported: list[Period], thresholds: FleetThresholds) -> tuple[Fleet, list[FleetVerdict]]:
    """The whole roll-out again, from what was reported."""
    fleet, verdicts = begin(start), []
    for period in reported:
        fleet, verdict = advance(fleet, period, thresholds)
        verdicts.append(verdict)
    return fleet, verdicts


def _counted(fleet: Fleet, period: Period, thresholds: FleetThresholds) -> Fleet:
    block = (period.control, period.candidate, fleet.before, thresholds.margin)
    return replace(
        fleet,
        control=fleet.control + period.control,
        candidate=fleet.candidate + period.candidate,
        before=fleet.before + period.control,
        safe=fleet.safe + inferiority_refuted(*block),
        harm=fleet.harm + worse(*block),
    )


def _lacking(fleet: Fleet, period: Period, thresholds: FleetThresholds) -> str:
    """What still keeps the next step from beginning, "" for nothing."""
    if period.at - fleet.since < thresholds.seconds:
        return f"{period.at - fleet.since} of {thresholds.seconds} seconds"
    fewest = min(fleet.control.units, fleet.candidate.units)
    if fewest < thresholds.units:
        return f"{fewest} of {thresholds.units} units in the smaller arm"
    if fleet.safe < odds(thresholds.promote_odds):
        return f"evidence {fleet.safe} of {odds(thresholds.promote_odds)} (ln, millionths) that it fails no more often"
    return ""


def _skewed(fleet: Fleet, thresholds: FleetThresholds) -> bool:
    """Pearson's chi-square of the arms' sizes against the percentage, in whole numbers."""
    percent, total = fleet.percent(thresholds), fleet.control.units + fleet.candidate.units
    off = 100 * fleet.candidate.units - total * percent
    return 1000 * off * off > thresholds.skew * total * percent * (100 - percent)


def _step(fleet: Fleet, step: int, period: Period) -> Fleet:
    return Fleet(step=step, since=period.at, before=fleet.before)


def _stop(fleet: Fleet, period: Period, thresholds: FleetThresholds, reason: str) -> tuple[Fleet, FleetVerdict]:
    fleet = replace(fleet, step=-1, stopped=reason)
    return fleet, _verdict(fleet, period, thresholds, "stop", reason)


def _verdict(
    fleet: Fleet,
    period: Period,
    thresholds: FleetThresholds,
    action: Literal["promote", "stay", "back", "stop"],
    reason: str,
) -> FleetVerdict:
    return FleetVerdict(at=period.at, action=action, percent=fleet.percent(thresholds), reason=reason)
