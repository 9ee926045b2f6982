"""What follows from failed loads and deaths, on a clock of the test's own."""

from __future__ import annotations

import pytest
from jan_llamacpp.failures import ModelLoadFailed, WorkerDied
from jan_llamacpp.history import MOST_DEATHS, WINDOW, History, pause


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def history(clock: Clock) -> History:
    return History(clock)


def died(history: History, lived: float = 0.0) -> None:
    history.died("m", lived, WorkerDied("gone: it crashed", cause="crash"))


def test_pauses_double_and_end_at_a_minute() -> None:
    assert [pause(count) for count in (1, 2, 3, 6, 7, 1000)] == [1, 2, 4, 32, 60, 60]


def test_a_failed_load_is_remembered_for_a_time_that_doubles(history: History, clock: Clock) -> None:
    error = ModelLoadFailed("no")
    for seconds in (1, 2, 4):
        history.failed(error)
        assert history.refusal() is error
        clock.now += seconds
        assert history.refusal() is None
        assert history.error is error
    history.loaded()
    history.failed(error)
    clock.now += 1
    assert not history.waits


def test_short_lives_are_followed_by_growing_pauses_and_a_long_one_by_none(history: History, clock: Clock) -> None:
    died(history)
    assert not history.waits
    died(history)
    assert history.waits
    assert history.refusal() is None  # it waits, and is not refused
    clock.now += 1
    assert not history.waits
    died(history)
    clock.now += 1.5
    assert history.waits
    clock.now += 1
    died(history, lived=61)
    assert not history.waits


def test_too_many_deaths_are_refused_with_their_cause_until_one_is_tried_again(history: History, clock: Clock) -> None:
    for _ in range(MOST_DEATHS):
        assert history.refusal() is None
        died(history, lived=61)  # however long they lived
    refusal = history.refusal()
    assert isinstance(refusal, WorkerDied)
    assert "m ended 5 times in 10 minutes (gone: it crashed); it is tried again in 60 seconds" in refusal.message
    assert refusal.data == {"cause": "crash", "deaths": 5, "retry_after": 60.0}
    clock.now += 59.9
    assert (history.refusal() or refusal).data["retry_after"] == 0.1
    clock.now += 0.1
    assert history.refusal() is None
    died(history)  # the trial
    assert (history.refusal() or refusal).data["retry_after"] == 120.0
    for _ in range(5):
        died(history)
    assert (history.refusal() or refusal).data["retry_after"] == 300.0


def test_a_trial_that_lives_closes_the_case_and_old_deaths_do_not_count(history: History, clock: Clock) -> None:
    for _ in range(MOST_DEATHS):
        died(history)
    clock.now += 60
    history.loaded()
    assert history.error is None
    clock.now += WINDOW
    died(history, lived=WINDOW)
    assert history.refusal() is None
    assert not history.waits
