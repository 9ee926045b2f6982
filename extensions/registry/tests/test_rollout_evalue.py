"""The fleet's evidence: its promise of at most one wrong decision in so many is checked exactly, not by drawing."""

from __future__ import annotations

from math import comb, exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jan_registry.rollout.evalue import Tally, inferiority_refuted, odds, worse

MARGIN = 1_000


def expectation(kind: str, n: int, m: int, a: float, b: float, before: Tally) -> float:
    """Of the e-value, over every outcome of `n` and `m` units that fail at the rates `a` and `b`."""
    test = {"inferiority_refuted": inferiority_refuted, "worse": worse}[kind]
    total = 0.0
    for i in range(n + 1):
        for j in range(m + 1):
            likely = comb(n, i) * a**i * (1 - a) ** (n - i) * comb(m, j) * b**j * (1 - b) ** (m - j)
            total += likely * exp(test(Tally(n, i), Tally(m, j), before, MARGIN) / 1e6)
    return total


befores = st.builds(lambda units, share: Tally(units, units * share // 100), st.integers(0, 500), st.integers(0, 100))
sizes = st.integers(1, 12)
rates = st.floats(0, 0.9)


@settings(deadline=None)
@given(sizes, sizes, rates, st.floats(0, 0.9), befores)
def test_under_an_inferior_candidate_the_evidence_against_it_is_one_at_most(
    n: int, m: int, a: float, more: float, before: Tally
) -> None:
    assert expectation("inferiority_refuted", n, m, a, min(1.0, a + 0.1 + more), before) <= 1 + 1e-9


@settings(deadline=None)
@given(sizes, sizes, rates, rates, befores)
def test_under_a_candidate_that_is_no_worse_the_evidence_of_harm_is_one_at_most(
    n: int, m: int, a: float, b: float, before: Tally
) -> None:
    assert expectation("worse", n, m, max(a, b), min(a, b), before) <= 1 + 1e-9


def test_the_evidence_grows_where_it_should() -> None:
    before = Tally(10_000, 100)
    good, bad = Tally(500, 5), Tally(500, 25)
    control = Tally(9_500, 95)
    assert inferiority_refuted(control, good, before, 100) > 1_000_000
    assert worse(control, good, before, 100) < 0
    assert inferiority_refuted(control, bad, before, 100) < 0
    assert worse(control, bad, before, 100) > odds(100)


def test_one_block_in_which_everybody_fails_costs_no_more_than_a_factor_of_ten() -> None:
    cost = inferiority_refuted(Tally(9_500, 9_500), Tally(500, 500), Tally(10_000, 100), 100)
    assert cost >= -odds(10) - 1


def test_an_empty_arm_says_nothing() -> None:
    assert inferiority_refuted(Tally(), Tally(10, 0), Tally(), 100) == 0
    assert worse(Tally(10, 0), Tally(), Tally(), 100) == 0


@pytest.mark.parametrize(("one_in", "expected"), [(2, 693_148), (100, 4_605_171), (1_000, 6_907_756)])
def test_thresholds_are_rounded_up(one_in: int, expected: int) -> None:
    assert odds(one_in) == expected
