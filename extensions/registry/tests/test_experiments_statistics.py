"""The statistics of experiments: held against exact calculation, against simulation under continuous peeking, and
against what everybody knows."""

from __future__ import annotations

import math
import os
import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.experiments.sequential import Counts, interval, log_e, p_value
from jan_registry.experiments.srm import STOP, always_valid_p, chi_square_p, log_bayes_factor

RUNS = int(os.environ.get("JAN_TEST_EXPERIMENTS", "60"))
"""Simulated experiments for each case; 2,000 for a long run."""
ALPHA = 0.05


# -- sample-ratio mismatch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("observed", "ratios", "p"),
    [  # statistics of 0, 4, 4.31 (one degree of freedom), 2 (two), 20 (three), 50 (four: 26 / e^25) and 0
        ([50, 50], [1, 1], 1.0),
        ([60, 40], [1, 1], 0.04550026),
        ([821, 739], [1, 1], 0.03788035),
        ([30, 50, 20], [1, 2, 1], 0.3678794),
        ([10, 20, 30, 40], [1, 1, 1, 1], 0.0001698974),
        ([5, 5, 5, 5, 30], [1, 1, 1, 1, 1], 3.6109e-10),
        ([900, 100], [9, 1], 1.0),
    ],
)
def test_the_chi_square_test_gives_the_p_values_of_the_tables(observed: list[int], ratios: list[int], p: float) -> None:
    assert chi_square_p(observed, ratios) == pytest.approx(p, rel=1e-3)


def test_nothing_observed_is_no_mismatch() -> None:
    assert chi_square_p([0, 0], [1, 1]) == always_valid_p([0, 0], [1, 1]) == 1.0


@pytest.mark.parametrize(("observed", "ratios"), [([1, 1], [1, 0]), ([1], [1, 1]), ([-1, 1], [1, 1]), ([], [])])
def test_counts_that_cannot_be_are_refused(observed: list[int], ratios: list[int]) -> None:
    for test in (chi_square_p, always_valid_p, log_bayes_factor):
        with pytest.raises(ValueError, match="must be"):
            test(observed, ratios)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.lists(st.integers(0, 60), min_size=4, max_size=4))
def test_the_evidence_is_a_martingale_under_the_intended_ratios(ratios: list[int], counts: list[int]) -> None:
    observed = counts[: len(ratios)]
    here = math.exp(log_bayes_factor(observed, ratios))
    after = sum(
        ratio / sum(ratios) * math.exp(log_bayes_factor([n + (i == j) for j, n in enumerate(observed)], ratios))
        for i, ratio in enumerate(ratios)
    )
    assert after == pytest.approx(here, rel=1e-9)


def test_looking_after_every_machine_stops_a_sound_experiment_with_less_than_the_promised_probability() -> None:
    # Exact: the probability of every state that was not stopped, machine by machine.
    alive, stopped = {0: 1.0}, 0.0
    for n in range(1, 601):
        after: defaultdict[int, float] = defaultdict(float)
        for k, probability in alive.items():
            after[k] += probability / 2
            after[k + 1] += probability / 2
        alive = {}
        for k, probability in after.items():
            if always_valid_p([n - k, k], [1, 1]) < STOP:
                stopped += probability
            else:
                alive[k] = probability
    assert 0 < stopped <= STOP


def test_a_mismatch_is_found() -> None:
    for observed, ratios in (([600, 400], [1, 1]), ([5300, 4700], [1, 1]), ([100, 100, 170], [1, 1, 1])):
        assert always_valid_p(observed, ratios) < STOP, observed
    assert always_valid_p([5050, 4950], [1, 1]) > 0.5


# -- the difference between two branches -------------------------------------------------------------------------------


def ever(control: float, other: float, machines: int, *, seed: int) -> float:
    """In which part of simulated experiments p falls below 0.05 at any of the looks, one after each machine."""
    draw, found = random.Random(seed), 0
    for _ in range(RUNS):
        seen = [[0, 0], [0, 0]]
        for _ in range(machines):
            arm = draw.random() < 0.5
            seen[arm][0] += 1
            seen[arm][1] += draw.random() < (other if arm else control)
            if p_value(Counts(*seen[0]), Counts(*seen[1])) < ALPHA:
                found += 1
                break
    return found / RUNS


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_peeking_all_the_time_finds_a_difference_that_is_not_there_in_at_most_one_of_twenty(p: float) -> None:
    noise = 3 * math.sqrt(ALPHA * (1 - ALPHA) / RUNS)
    assert ever(p, p, 1000, seed=int(p * 100)) <= ALPHA + noise


def test_a_difference_that_is_there_is_found() -> None:
    assert ever(0.1, 0.25, 1000, seed=1) >= 0.9


@pytest.mark.parametrize("p", [0.05, 0.3, 0.5])
def test_the_probability_of_a_false_alarm_is_below_alpha_by_exact_calculation(p: float) -> None:
    # State: machines and successes of each branch, machines arriving one by one, drawn by an even lot.
    alive, alarms = {(0, 0, 0, 0): 1.0}, 0.0
    for _ in range(26):
        after: defaultdict[tuple[int, int, int, int], float] = defaultdict(float)
        for (n, s, m, t), probability in alive.items():
            after[n + 1, s + 1, m, t] += probability * p / 2
            after[n + 1, s, m, t] += probability * (1 - p) / 2
            after[n, s, m + 1, t + 1] += probability * p / 2
            after[n, s, m + 1, t] += probability * (1 - p) / 2
        alive = {}
        for (n, s, m, t), probability in after.items():
            if p_value(Counts(n, s), Counts(m, t)) < ALPHA:
                alarms += probability
            else:
                alive[n, s, m, t] = probability
    assert alarms <= ALPHA


counts = st.integers(0, 4000).flatmap(lambda n: st.integers(0, n).map(lambda k: Counts(n, k)))


@given(counts, counts)
def test_the_test_is_the_same_from_either_side_and_for_success_and_failure(one: Counts, two: Counts) -> None:
    assert log_e(one, two) == pytest.approx(log_e(two, one), abs=1e-9)
    turned = [Counts(each.machines, each.machines - each.successes) for each in (one, two)]
    assert log_e(one, two) == pytest.approx(log_e(*turned), abs=1e-9)
    assert 0 <= p_value(one, two) <= 1


@settings(max_examples=40)
@given(counts, counts)
def test_the_interval_holds_what_was_seen_is_mirrored_and_narrows_with_a_larger_alpha(one: Counts, two: Counts) -> None:
    low, high = interval(one, two)
    assert -1 <= low <= high <= 1
    if one.machines and two.machines:
        assert low <= two.successes / two.machines - one.successes / one.machines <= high
    back = interval(two, one)
    assert (-back[1], -back[0]) == pytest.approx((low, high), abs=1e-4)
    narrow = interval(one, two, 0.5)
    assert low - 1e-4 <= narrow[0] <= narrow[1] <= high + 1e-4


def test_the_interval_narrows_as_machines_come() -> None:
    widths = [
        high - low for n in (10, 100, 1000, 10_000) for low, high in [interval(Counts(n, n // 5), Counts(n, n // 5))]
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.06
    assert interval(Counts(0, 0), Counts(10, 5)) == (-1.0, 1.0)


@pytest.mark.parametrize(("control", "other"), [(0.1, 0.1), (0.02, 0.08), (0.5, 0.8)])
def test_the_true_difference_stays_in_the_interval_at_all_looks(control: float, other: float) -> None:
    draw, missed = random.Random(11), 0
    for _ in range(max(10, RUNS // 4)):
        seen = [[0, 0], [0, 0]]
        for n in range(1, 601):
            for arm, p in enumerate((control, other)):
                seen[arm][0] += 1
                seen[arm][1] += draw.random() < p
            if n % 20 == 0:
                low, high = interval(Counts(*seen[0]), Counts(*seen[1]))
                if not low <= other - control <= high:
                    missed += 1
                    break
    assert missed <= ALPHA * max(10, RUNS // 4) + 1


@pytest.mark.parametrize("bad", [Counts(1, 2), Counts(-1, -1), Counts(1, 1, 0)])
def test_impossible_counts_are_refused(bad: Counts) -> None:
    for call in (log_e, p_value, interval):
        with pytest.raises(ValueError, match="of"):
            call(Counts(1, 1), bad)


def test_a_million_machines_are_no_trouble() -> None:
    control, other = Counts(1_000_000, 100_000), Counts(1_000_000, 103_000)
    low, high = interval(control, other)
    assert 0 < low < 0.003 < high < 0.006
    assert p_value(control, other) < 1e-6
