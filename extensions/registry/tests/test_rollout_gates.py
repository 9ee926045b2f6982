"""This machine's gate: every criterion holds back, every defect demotes, missing data only holds back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.rollout.gates import VERSION, Evidence, Inputs, Thresholds, Verdict, judge
from msgspec.structs import replace

from jan_core.types import Phase

DAY = 86_400
SYNCED = Evidence(syncs=20, sync_seconds=3 * DAY, conflicts=0)
PAIRED = Evidence(
    pairs=60,
    pair_seconds=7 * DAY,
    coverage=9_900,
    conflicts=0,
    dynamic_p95=6_000,
    builtin_p95=5_000,
    age=3_600,
)


def verdict(phase: Phase, evidence: Evidence, *, pinned: bool = False, obstacle: str = "") -> Verdict:
    limits = Thresholds()
    return judge(
        Inputs(
            gate=VERSION,
            phase=phase,
            now=1_000_000,
            pinned=pinned,
            obstacle=obstacle,
            evidence=evidence,
            thresholds=limits,
        )
    )


def test_enough_good_syncs_lead_to_mixed() -> None:
    found = verdict("fallback", SYNCED)
    assert (found.action, found.phase) == ("promote", "mixed")


def test_enough_good_pairs_lead_to_dynamic() -> None:
    found = verdict("mixed", PAIRED)
    assert (found.action, found.phase) == ("promote", "dynamic")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"syncs": 19}, "syncs"),
        ({"sync_seconds": 3 * DAY - 1}, "span of syncs"),
        ({"refusals": 1}, "refused syncs"),
        ({"conflicts": 1}, "conflicts"),
        ({"conflicts": -1}, "conflicts"),
    ],
)
def test_each_criterion_of_fallback_holds_back_alone(change: dict[str, int], name: str) -> None:
    found = verdict("fallback", replace(SYNCED, **change))
    assert found.action == "stay"
    assert [criterion.name for criterion in found.criteria if not criterion.met] == [name]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"pairs": 59}, "pairs"),
        ({"pair_seconds": 7 * DAY - 1}, "span of pairs"),
        ({"failing": 1}, "failures without recovery"),
        ({"refusals": 1}, "refused syncs"),
        ({"coverage": 9_899}, "coverage"),
        ({"coverage": -1}, "coverage"),
        ({"conflicts": -1}, "conflicts"),
        ({"dynamic_p95": 6_001}, "p95 beside the built-in list"),
        ({"builtin_p95": -1}, "p95 beside the built-in list"),
        ({"age": 3_601}, "age"),
        ({"age": -1}, "age"),
    ],
)
def test_each_criterion_of_mixed_holds_back_alone(change: dict[str, int], name: str) -> None:
    found = verdict("mixed", replace(PAIRED, **change))
    assert found.action == "stay"
    assert [criterion.name for criterion in found.criteria if not criterion.met] == [name]


def test_nobody_waits_for_microseconds_below_the_floor_but_fifty_milliseconds_are_the_most() -> None:
    assert verdict("mixed", replace(PAIRED, builtin_p95=10, dynamic_p95=5_000)).action == "promote"
    slow = verdict("mixed", replace(PAIRED, builtin_p95=60_000, dynamic_p95=50_001))
    assert [criterion.name for criterion in slow.criteria if not criterion.met] == ["p95"]


@pytest.mark.parametrize("change", [{"conflicts": 1}, {"errors": 3}, {"slow": 20}])
@pytest.mark.parametrize(("phase", "before"), [("mixed", "fallback"), ("dynamic", "mixed")])
def test_a_defect_goes_one_step_back_at_once(change: dict[str, int], phase: Phase, before: Phase) -> None:
    found = verdict(phase, replace(PAIRED, **change))
    assert (found.action, found.phase) == ("demote", before)
    assert len(found.defects) == 1


@pytest.mark.parametrize("change", [{"errors": 2}, {"slow": 19}, {"refusals": 50}, {"conflicts": -1}])
def test_what_is_no_defect_does_not_demote(change: dict[str, int]) -> None:
    assert verdict("mixed", replace(PAIRED, **change)).action != "demote"
    assert verdict("dynamic", replace(PAIRED, **change)).action == "stay"


def test_an_obstacle_keeps_from_promotion_and_is_the_reason_but_not_from_demotion() -> None:
    found = verdict("mixed", PAIRED, obstacle="the operator's flags have expired")
    assert (found.action, found.reason) == ("stay", "the operator's flags have expired")
    assert verdict("mixed", replace(PAIRED, conflicts=1), obstacle="no").action == "demote"


def test_a_phase_that_somebody_here_chose_stays_and_says_what_is_wrong() -> None:
    found = verdict("mixed", replace(PAIRED, conflicts=1), pinned=True, obstacle="the setting asks for it")
    assert (found.action, found.phase) == ("stay", "mixed")
    assert [defect.name for defect in found.defects] == ["conflicts"]


def test_there_is_nothing_below_fallback_and_nothing_above_dynamic() -> None:
    assert verdict("fallback", replace(SYNCED, conflicts=5, errors=9, slow=99)).action == "stay"
    assert verdict("dynamic", PAIRED).phase == "dynamic"


numbers = st.integers(-1, 10**9)
evidences = st.builds(Evidence, **dict.fromkeys(Evidence.__struct_fields__, numbers))


@settings(deadline=None)
@given(st.sampled_from(["fallback", "mixed", "dynamic"]), evidences)
def test_a_verdict_is_one_step_at_most_and_says_why(phase: Phase, evidence: Any) -> None:
    order = ["fallback", "mixed", "dynamic"]
    found = verdict(phase, evidence)
    step = order.index(found.phase) - order.index(phase)
    assert step == {"promote": 1, "stay": 0, "demote": -1}[found.action]
    assert found.reason
    assert found.action != "promote" or all(criterion.met for criterion in found.criteria)
    assert found == verdict(phase, evidence)


@settings(deadline=None)
@given(evidences, st.sampled_from(["coverage", "conflicts", "dynamic_p95", "builtin_p95", "age"]))
def test_missing_data_never_promotes_from_mixed(evidence: Any, name: str) -> None:
    assert verdict("mixed", replace(evidence, **{name: -1})).action != "promote"
