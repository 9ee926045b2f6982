"""Token buckets: how much passes, whose turn it is, and how soon a change counts. Time is simulated."""

from __future__ import annotations

import threading
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from jan_download.limits import Bucket, Limits


class Time:
    """A clock that goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0
        self.longest = 0.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.longest = max(self.longest, seconds)
        self.now += seconds
        return False


@given(rate=st.integers(1, 1 << 30), amounts=st.lists(st.integers(1, 1 << 22), min_size=1, max_size=50))
@settings(deadline=None, max_examples=50)
def test_no_more_passes_than_the_rate_allows_and_no_less(rate: int, amounts: list[int]) -> None:
    clock = Time()
    amounts = [min(n, rate * 20) for n in amounts]  # else the simulation takes hours of turns
    bucket = Bucket(lambda: rate, clock)
    for n in amounts:
        assert bucket.spend(n, clock.wait)
    elapsed = clock.now - 100.0
    assert sum(amounts[:-1]) <= rate * elapsed + 1  # the last is owed still
    assert elapsed <= sum(amounts[:-1]) / rate + 0.002 * len(amounts)
    assert clock.longest <= 0.25


def test_without_a_rate_nobody_waits() -> None:
    def never(seconds: float) -> bool:
        raise AssertionError(seconds)

    limits = Limits("a", lambda: 0, Bucket(lambda: 0))
    for _ in range(100):
        limits.spend(1 << 30, never)
    assert limits.grain(1 << 20) == 1 << 20


def test_a_change_of_the_rate_counts_within_a_quarter_of_a_second_also_for_what_is_owed() -> None:
    clock, rate = Time(), 1000
    bucket = Bucket(lambda: rate, clock)
    bucket.spend(1_000_000, clock.wait)  # a quarter of an hour at this rate
    waits = 0

    def wait(seconds: float) -> bool:
        nonlocal rate, waits
        waits += 1
        if waits == 2:
            rate = 0
        return clock.wait(seconds)

    assert bucket.spend(1, wait)
    assert clock.now - 100.0 <= 0.75


def test_who_is_stopped_while_it_waits_returns_at_once_and_takes_nothing() -> None:
    clock = Time()
    bucket = Bucket(lambda: 1000, clock)
    bucket.spend(500, clock.wait)
    assert not bucket.spend(10**9, lambda seconds: True)
    assert bucket.spend(1, clock.wait)
    assert clock.now - 100.0 < 0.6


def test_the_job_that_was_idle_has_no_credit_for_it() -> None:
    clock = Time()
    bucket = Bucket(lambda: 1000, clock)
    for _ in range(20):
        bucket.spend(100, clock.wait, "busy")
    clock.now += 3600
    before = clock.now
    for _ in range(20):
        bucket.spend(100, clock.wait, "idle")
    assert clock.now - before >= (2000 - 100 - 250) / 1000  # the burst, and what is owed at the end


def test_jobs_share_a_rate_evenly_however_many_connections_each_has() -> None:
    """Real threads: eight of one job against one of another."""
    bucket, stop, passed, lock = Bucket(lambda: 4_000_000), threading.Event(), Counter[str](), threading.Lock()
    full = threading.Event()

    def connection(job: str) -> None:
        while not stop.is_set():
            if bucket.spend(16_000, stop.wait, job):
                with lock:
                    passed[job] += 16_000
                    if sum(passed.values()) > 3_200_000:
                        full.set()

    threads = [threading.Thread(target=connection, args=(job,), daemon=True) for job in "aaaaaaaab"]
    for thread in threads:
        thread.start()
    assert full.wait(10)
    stop.set()
    for thread in threads:
        thread.join(5)
    assert 0.7 <= passed["a"] / passed["b"] <= 1.5, passed


def test_the_limit_of_a_job_and_that_of_all_hold_both() -> None:
    clock = Time()
    everybody = Bucket(lambda: 10_000, clock)
    rates: dict[str, int] = {"slow": 1000}
    limits = Limits("slow", lambda: rates["slow"], everybody, clock)
    assert limits.grain(1 << 20) == 4096
    for _ in range(10):
        limits.spend(1000, clock.wait)
    assert 8.9 <= clock.now - 100.0 <= 9.5
    rates["slow"] = 0
    before = clock.now
    for _ in range(10):
        limits.spend(1000, clock.wait)
    assert 0.6 <= clock.now - before <= 1.1
