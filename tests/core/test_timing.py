"""Timing records: exact counts, percentiles of a known error, one generation at a time."""

from __future__ import annotations

import gc
import time
import weakref
from math import ceil, nextafter

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jan_core.timing import ERROR, LONGEST, SHORTEST, Figures, Timing, Timings

times = st.floats(SHORTEST, LONGEST, exclude_max=True)


@given(st.lists(times, min_size=1), st.floats(0, 1))
@example([nextafter(LONGEST, 0)], 1.0)
@example([SHORTEST], 0.0)
def test_a_percentile_is_within_the_documented_error_of_the_exact_one(samples: list[float], share: float) -> None:
    timing = Timing()
    for seconds in samples:
        timing.add(seconds)
    exact = sorted(samples)[max(1, ceil(share * len(samples))) - 1]
    assert exact / (1 + ERROR) <= timing.percentile(share) * (1 + 1e-9)
    assert timing.percentile(share) <= exact * (1 + ERROR) * (1 + 1e-9)
    assert timing.percentile(share) <= timing.longest


@given(st.lists(st.tuples(st.floats(0, 1e9), st.booleans(), st.booleans())))
def test_counts_sum_and_longest_are_exact_whatever_the_times(samples: list[tuple[float, bool, bool]]) -> None:
    timing = Timing()
    for seconds, failed, timed_out in samples:
        timing.add(seconds, failed, timed_out)
    assert timing.calls == len(samples)
    assert timing.failures == sum(failed for _, failed, _ in samples)
    assert timing.timeouts == sum(failed and timed_out for _, failed, timed_out in samples)
    assert timing.total == pytest.approx(sum(seconds for seconds, _, _ in samples))
    assert timing.longest == max((seconds for seconds, _, _ in samples), default=0.0)


@given(st.one_of(st.floats(0, SHORTEST, exclude_max=True), st.floats(LONGEST, 1e12)))
def test_times_out_of_range_count_as_the_nearest_that_is_told_apart(seconds: float) -> None:
    timing = Timing()
    timing.add(seconds)
    nearest = SHORTEST if seconds < SHORTEST else LONGEST
    assert timing.percentile(0.5) <= seconds
    assert timing.percentile(0.5) <= nearest * (1 + ERROR)
    if seconds >= LONGEST:
        assert timing.percentile(0.5) >= LONGEST / (1 + ERROR) ** 2


def test_figures_of_nothing_are_zeros_and_of_something_are_json() -> None:
    assert Timing().figures() == Figures(0, 0, 0, 0, 0, 0.0, 0.0, 0.0, 0.0)
    timing = Timing(3)
    timing.in_flight += 1
    timing.add(0.5, failed=True, timed_out=True)
    wire = msgspec.to_builtins(timing.figures())
    assert wire == {
        "generation": 3,
        "calls": 1,
        "failures": 1,
        "timeouts": 1,
        "inFlight": 1,
        "total": 0.5,
        "longest": 0.5,
        "p50": 0.5,
        "p95": 0.5,
    }


def test_a_newer_generation_begins_anew_and_an_older_one_is_not_mixed_in() -> None:
    timings = Timings()
    first = timings.of("m", 1)
    first.add(1.0)
    assert timings.of("m", 1) is first
    assert timings.figures()["m"].calls == 1
    second = timings.of("m", 2)
    second.add(2.0)
    first.add(1.0)
    timings.of("m", 1).add(1.0)
    assert (timings.figures()["m"].generation, timings.figures()["m"].calls) == (2, 1)


def test_a_timing_keeps_nothing_alive_but_numbers() -> None:
    class Code:
        number = 1

    code = Code()
    gone = weakref.ref(code)
    timings = Timings()
    timings.of("m", code.number).add(0.1)
    del code
    gc.collect()
    assert gone() is None


def test_recording_is_cheap() -> None:
    """Well under half a microsecond on an idle machine; the bound here leaves room for a busy one."""
    timing = Timing()
    best = min(_seconds_for(timing, 10_000) for _ in range(20)) / 10_000
    assert best < 2e-6


def _seconds_for(timing: Timing, calls: int) -> float:
    began = time.perf_counter()
    for _ in range(calls):
        timing.add(0.0123)
    return time.perf_counter() - began
