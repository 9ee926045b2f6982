"""From counts to what they say: added up over machines, checked for a mismatch, compared with the control. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ..collections import Experiment
from .enrolment import Enrolment
from .exposure import Evidence
from .sequential import Counts, interval, p_value
from .shapes import Aggregate, BranchCounts, Comparison, ExperimentReport, Kind
from .srm import STOP, always_valid_p, chi_square_p

__all__ = ["ALPHA", "Unfit", "aggregate_of", "assess", "merged", "metric_of"]

ALPHA = 0.05
KINDS: tuple[Kind, ...] = ("download", "load", "chat")


class Unfit(ValueError):
    """Counts that cannot be, or that do not go together. `place`: of the aggregate among those given."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place = place


def aggregate_of(
    experiment: Experiment, enrolment: Enrolment, evidence: Evidence | None, now: float
) -> Aggregate | None:
    """This machine's counts; None when it is not counted."""
    if not enrolment.counted:
        return None
    branches = []
    for each in experiment.branches:
        counts = BranchCounts(each.id, each.ratio)
        if each.id == enrolment.branch:
            counts.enrolled = 1
            if evidence is not None:
                counts.exposed, counts.settled = 1, int(evidence.settled(now))
                counts.converted = {kind: 1 for kind in KINDS if counts.settled and evidence.converted(kind)}
        branches.append(counts)
    return Aggregate(experiment.id, enrolment.key, branches, metric_of(experiment))


def merged(aggregates: Iterable[Aggregate]) -> dict[str, Aggregate]:
    """The sums by key. Raises Unfit."""
    found: dict[str, Aggregate] = {}
    for place, each in enumerate(aggregates):
        _check(place, each)
        if (sums := found.get(each.key)) is None:
            blank = [BranchCounts(branch.branch, branch.ratio) for branch in each.branches]
            sums = found[each.key] = Aggregate(each.experiment, each.key, blank, each.metric)
        shape = [(branch.branch, branch.ratio) for branch in each.branches]
        if (each.experiment, each.metric) != (sums.experiment, sums.metric) or shape != [
            (branch.branch, branch.ratio) for branch in sums.branches
        ]:
            raise Unfit(place, f"{each.key} has other branches or another metric than before")
        for total, more in zip(sums.branches, each.branches, strict=True):
            total.enrolled += more.enrolled
            total.exposed += more.exposed
            total.settled += more.settled
            for kind, count in more.converted.items():
                total.converted[kind] = total.converted.get(kind, 0) + count
    return found


def assess(aggregate: Aggregate) -> ExperimentReport:
    """What the counts say."""
    branches = aggregate.branches
    exposed, ratios = [each.exposed for each in branches], [each.ratio for each in branches]
    mismatch = always_valid_p(exposed, ratios)
    stop = mismatch < STOP
    control, *others = branches
    return ExperimentReport(
        experiment=aggregate.experiment,
        key=aggregate.key,
        metric=aggregate.metric,
        branches=branches,
        mismatch_p=mismatch,
        chi_square_p=chi_square_p(exposed, ratios),
        stop=stop,
        comparisons=[_compare(control, each, aggregate.metric, len(others), stop) for each in others],
    )


def metric_of(experiment: Experiment) -> Kind:
    """What is compared; the first kind where this program does not know what the operator wants."""
    return next((kind for kind in KINDS if kind == experiment.metric), KINDS[0])


def _compare(control: BranchCounts, other: BranchCounts, metric: Kind, branches: int, stop: bool) -> Comparison:
    """`branches`: so many are compared with the control, and each takes its part of the error (Bonferroni)."""
    one, two = (Counts(each.settled, each.converted.get(metric, 0), each.ratio) for each in (control, other))
    low, high = interval(one, two, ALPHA / branches)
    p = min(1.0, p_value(one, two) * branches)
    difference = two.successes / two.machines - one.successes / one.machines if one.machines and two.machines else None
    if stop:
        return Comparison(other.branch, difference, low, high, p, "mismatch")
    if p >= ALPHA or not difference:
        return Comparison(other.branch, difference, low, high, p, "open")
    return Comparison(other.branch, difference, low, high, p, "better" if difference > 0 else "worse")


def _check(place: int, aggregate: Aggregate) -> None:
    ids = [branch.branch for branch in aggregate.branches]
    if len(set(ids)) < len(ids):
        raise Unfit(place, "two branches have the same id")
    for branch in aggregate.branches:
        if not branch.enrolled >= branch.exposed >= branch.settled >= max(branch.converted.values(), default=0):
            raise Unfit(place, f"{branch.branch}: more machines were counted later than before")
