"""How many threads to compute with: what the machine has, less what others use of it."""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker import accounting, threads
from jan_llamacpp.worker.accounting import Reading, open_accounts, parse_stat, quota
from jan_llamacpp.worker.threads import EAGER_PERIOD, PERIOD, ThreadGovernor, usable_cores


def load(cores: int, *foreign: float) -> tuple[ThreadGovernor, list[int]]:
    """A governor, and the numbers it applied. `foreign`: how many cores others keep busy, in each period. This process
    keeps one busy.
    """
    readings = [Reading(0.0, 0.0, 0.0)]
    for busy in foreign:
        now, everybody, own = readings[-1]
        readings.append(Reading(now + PERIOD, everybody + (busy + 1) * PERIOD, own + PERIOD))
    told = iter(readings)
    governor = ThreadGovernor(cores, adapt=True, accounts=lambda: lambda: next(told))
    applied = [governor.threads for _ in foreign if governor.look(0)]
    return governor, applied


def test_on_a_quiet_machine_every_core_is_used() -> None:
    assert load(4, 0.0, 0.1, 0.3)[0].threads == 4


def test_a_core_that_others_use_is_left_to_them_at_once() -> None:
    governor, applied = load(4, 1.0)
    assert governor.threads == 3
    assert applied == [3]


def test_a_core_is_taken_back_only_after_a_calm_while() -> None:
    assert load(2, 1.0, 0.0)[0].threads == 1
    assert load(2, 1.0, 0.0, 0.0, 0.0)[0].threads == 2


@given(st.integers(2, 64), st.lists(st.floats(0, 100), max_size=20))
def test_there_is_always_a_thread_and_never_more_than_asked_for(cores: int, foreign: list[float]) -> None:
    governor, applied = load(cores, *foreign)
    assert 1 <= governor.threads <= cores
    assert all(1 <= count <= cores for count in applied)
    assert all(a != b for a, b in pairwise([cores, *applied]))


def governed(*readings: Reading) -> ThreadGovernor:
    told = iter(readings)
    governor = ThreadGovernor(4, adapt=True, accounts=lambda: lambda: next(told))
    governor._now = lambda: readings[-1].now  # type: ignore[method-assign]
    return governor


def test_what_happened_in_a_pause_does_not_hide_what_happens_now() -> None:
    governor = governed(
        Reading(0, 0, 0),
        Reading(100, 5, 1),
        Reading(100 + EAGER_PERIOD, 5 + 2 * EAGER_PERIOD, 1 + EAGER_PERIOD),
    )
    assert not governor.begin()
    assert governor.look(), "one core was busy with others since the work began, though none was for most of the pause"
    assert governor.threads == 3


def test_after_a_pause_the_number_is_what_the_others_left_in_it() -> None:
    governor = governed(Reading(0, 0, 0), Reading(1, 3, 1), Reading(2, 5, 1), Reading(3, 5, 1))
    assert governor.look(0)
    assert governor.threads == 2
    assert not governor.begin()
    assert governor.begin(), "they ended before the work began again: no step is taken with less"
    assert governor.threads == 4


def test_an_explicit_number_stays() -> None:
    governor = ThreadGovernor(3, adapt=False)
    assert not governor.look()
    assert governor.threads == 3


def test_where_the_system_does_not_tell_the_number_stays() -> None:
    governor = ThreadGovernor(3, adapt=True, accounts=lambda: None)
    assert not governor.look(0)


def test_there_is_at_least_one_core_and_no_more_than_the_system_says() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_a_container_may_use_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cpu.max"
    monkeypatch.setattr(accounting, "_CGROUP_2", file)
    monkeypatch.setattr(accounting, "_CGROUP_1", tmp_path)
    monkeypatch.setattr(threads, "_physical_cores", lambda: 8)
    assert (quota(), usable_cores()) == (None, 8)
    for text, share, cores in [
        ("max 100000", None, 8),
        ("250000 100000", 2.5, 2),
        ("50000 100000", 0.5, 1),
        ("x", None, 8),
    ]:
        file.write_text(text)
        assert (quota(), usable_cores()) == (share, cores)
    file.unlink()
    (tmp_path / "cpu.cfs_quota_us").write_text("300000\n")
    (tmp_path / "cpu.cfs_period_us").write_text("100000\n")
    assert quota() == 3.0


STAT = """cpu  100 20 30 900 5 1 2 3 0 0
cpu0 60 10 15 400 2 1 1 1 0 0
cpu1 30 5 10 300 2 0 1 1 0 0
cpu2 10 5 5 200 1 0 0 1 0 0
intr 1 2 3
"""


def test_what_gives_way_does_not_count_and_neither_do_processors_that_are_not_ours() -> None:
    assert parse_stat(STAT, None, nice=False) == 100 + 30 + 1 + 2 + 3
    assert parse_stat(STAT, None, nice=True) == 100 + 30 + 1 + 2 + 3 + 20
    assert parse_stat(STAT, frozenset({0, 2}), nice=False) == (60 + 15 + 1 + 1 + 1) + (10 + 5 + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/stat")
def test_the_accounts_of_this_machine_count_what_this_process_does() -> None:
    read = open_accounts()
    assert read is not None
    first = read()
    while time.process_time() < first.own + 0.1:
        pass
    last = read()
    assert last.own - first.own >= 0.05
    assert last.everybody >= first.everybody
