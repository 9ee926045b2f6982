"""The operator's gate, step by step and over simulated fleets. `JAN_TEST_FLEETS=10000` for the long run."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from jan_registry.rollout.evalue import Tally
from jan_registry.rollout.fleet import Fleet, FleetThresholds, FleetVerdict, Period, advance, begin, replay

DAY = 86_400
FLEETS = int(os.environ.get("JAN_TEST_FLEETS", "400"))
SCRIPT = Path(__file__).parents[3] / "bench" / "registry" / "fleets.py"
LIMITS = FleetThresholds()


@pytest.fixture(scope="module")
def fleets() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("bench_fleets", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run(*periods: Period, fleet: Fleet | None = None) -> tuple[Fleet, list[FleetVerdict]]:
    fleet, verdicts = fleet or begin(0), []
    for period in periods:
        fleet, verdict = advance(fleet, period, LIMITS)
        verdicts.append(verdict)
    return fleet, verdicts


def day(number: int, control: tuple[int, int] = (9_500, 95), candidate: tuple[int, int] = (500, 5)) -> Period:
    return Period(at=number * DAY, control=Tally(*control), candidate=Tally(*candidate))


def test_a_good_candidate_goes_up_step_by_step_to_everybody() -> None:
    fleet, verdicts = run(
        *(day(n) for n in range(1, 5)), day(5, (7_500, 75), (2_500, 25)), day(6, (5_000, 50), (5_000, 50)), day(7)
    )
    assert [verdict.action for verdict in verdicts] == ["stay"] * 3 + ["promote"] * 3 + ["stay"]
    assert [verdict.percent for verdict in verdicts][-3:] == [50, 100, 100]
    assert fleet.step == 3


def test_no_step_takes_less_than_a_day_or_fewer_than_three_hundred_units_in_each_arm() -> None:
    _, verdicts = run(Period(at=DAY - 1, control=Tally(950_000, 95), candidate=Tally(50_000, 5)))
    assert verdicts[0].reason == f"{DAY - 1} of {DAY} seconds"
    _, verdicts = run(*(day(n, (950, 0), (50, 0)) for n in range(1, 6)))
    assert verdicts[-1].reason == "250 of 300 units in the smaller arm"


def test_missing_data_is_a_failed_check_and_two_in_a_row_go_one_step_back() -> None:
    at_25 = Fleet(step=1, since=0, before=Tally(10_000, 100))
    missing = day(1, (7_500, 75), (0, 0))
    fleet, verdicts = run(missing, Period(at=2 * DAY), fleet=at_25)
    assert [(verdict.action, verdict.percent) for verdict in verdicts] == [("stay", 25), ("back", 5)]
    assert (fleet.since, fleet.control, fleet.failed) == (2 * DAY, Tally(), 0)


def test_a_good_check_between_two_failed_ones_counts() -> None:
    gap = Period(at=DAY)
    _, verdicts = run(gap, day(2), gap, day(4), gap)
    assert {verdict.action for verdict in verdicts} == {"stay"}


def test_at_the_first_step_there_is_nothing_to_go_back_to_and_it_stops_for_good() -> None:
    fleet, verdicts = run(Period(at=DAY), Period(at=2 * DAY), *(day(n) for n in range(3, 10)))
    assert [verdict.action for verdict in verdicts][:2] == ["stay", "stop"]
    assert {verdict.percent for verdict in verdicts[1:]} == {0}
    assert fleet.stopped == "an arm was not reported"


def test_arms_that_are_not_divided_as_the_percentage_divides_stop_it() -> None:
    _, verdicts = run(day(1, (9_500, 95), (400, 4)))
    assert verdicts[0].action == "stop"
    assert "which 5 % cannot be" in verdicts[0].reason


def test_harm_goes_back_after_two_checks() -> None:
    at_50 = Fleet(step=2, since=0, before=Tally(10_000, 100))
    harm = [day(n, (5_000, 50), (5_000, 150)) for n in (1, 2)]
    _, verdicts = run(*harm, fleet=at_50)
    assert [(verdict.action, verdict.percent) for verdict in verdicts] == [("stay", 50), ("back", 25)]


def test_the_same_reports_give_the_same_decisions_byte_for_byte(fleets: ModuleType) -> None:
    import random

    periods = [fleets.period(random.Random(n), fleets.GOOD, 5, n) for n in range(1, 15)]
    again = msgspec.json.decode(msgspec.json.encode(periods), type=list[Period])
    assert msgspec.json.encode(replay(0, periods, LIMITS)) == msgspec.json.encode(replay(0, again, LIMITS))


def test_a_candidate_with_two_percent_extra_failures_reaches_everybody_in_one_fleet_of_a_hundred_at_most(
    fleets: ModuleType,
) -> None:
    outcomes = fleets.simulate(fleets.BAD, FLEETS, 14, 1)
    assert sum(outcome.full for outcome in outcomes) <= FLEETS // 100
    assert sum(outcome.stopped for outcome in outcomes) >= FLEETS * 0.95


def test_a_good_candidate_reaches_everybody_within_fourteen_days_in_ninety_five_fleets_of_a_hundred(
    fleets: ModuleType,
) -> None:
    outcomes = fleets.simulate(fleets.GOOD, FLEETS, 14, 1)
    assert sum(outcome.full for outcome in outcomes) >= FLEETS * 0.95


def test_a_candidate_that_only_fails_at_half_of_the_machines_is_caught_there(fleets: ModuleType) -> None:
    late = next(scenario for scenario in fleets.OTHERS if scenario.name == "fails 2 % more, from 50 % on")
    outcomes = fleets.simulate(late, FLEETS // 4, 14, 1)
    assert sum(outcome.full for outcome in outcomes) <= FLEETS // 400


def test_the_simulated_failures_are_binomial(fleets: ModuleType) -> None:
    import random

    rng = random.Random(1)
    drawn = [fleets.failures(rng, 1_000, 0.03) for _ in range(2_000)]
    mean = sum(drawn) / len(drawn)
    variance = sum((count - mean) ** 2 for count in drawn) / len(drawn)
    assert abs(mean - 30) < 0.5
    assert abs(variance - 29.1) < 3
