"""What was seen is kept, bounded, and added up to evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from jan_registry.local import open_local
from jan_registry.rollout import observations as module
from jan_registry.rollout.evidence import gather
from jan_registry.rollout.gates import Thresholds
from jan_registry.rollout.observations import Entered, Observations, Pair, Serve, Sync, percentile
from jan_registry.sqlite import Database

DAY = 86_400
GOOD = Pair(builtin_us=100, dynamic_us=200, coverage=10_000, overlap=10_000, age=60)


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return open_local(tmp_path)


@pytest.fixture
def seen(db: Database) -> Observations:
    return Observations(db, "registry.phase")


def write(seen: Observations, now: float = 0.0) -> None:
    seen.write(seen.take(now), now)


def test_what_is_written_is_read_newest_first(seen: Observations) -> None:
    for at in (1, 2):
        seen.add(at, Sync(outcome="ok", seq=at))
    write(seen)
    assert [(row.at, row.seen) for row in seen.latest("sync")] == [
        (2, Sync(outcome="ok", seq=2)),
        (1, Sync(outcome="ok", seq=1)),
    ]
    assert seen.latest("pair") == []


def test_reading_before_anything_was_seen_makes_no_file(seen: Observations, db: Database) -> None:
    assert seen.latest("sync") == []
    assert seen.run("sync", 0) == (0, 0, 0)
    write(seen, now=1e9)
    assert not db.path.exists()


def test_a_run_counts_good_ones_since_the_last_bad_one(seen: Observations) -> None:
    outcomes = ["ok", "refused", "ok", "unreachable", "ok"]
    for day, outcome in enumerate(outcomes):
        seen.add(day * DAY, Sync(outcome=outcome))  # type: ignore[arg-type]
    write(seen)
    assert seen.run("sync", 0) == (2, 2 * DAY, 0)
    seen.add(9 * DAY, Sync(outcome="refused", refused="rollback"))
    write(seen)
    assert seen.run("sync", 0) == (0, 0, 1)
    assert seen.run("sync", 10 * DAY) == (0, 0, 0)


def test_answers_are_batched_and_sampled_evenly(seen: Observations) -> None:
    for micros in range(10_000):
        seen.served("dynamic", micros)
    seen.served("builtin", 5, ok=False)
    rows = [row.seen for row in seen.take(7)]
    dynamic, builtin = (row for row in rows if isinstance(row, Serve))
    assert (dynamic.count, dynamic.errors) == (10_000, 0)
    assert 32 <= len(dynamic.micros) <= 64
    assert abs(percentile(dynamic.micros, 50) - 5_000) < 200
    assert (builtin.count, builtin.errors, builtin.micros) == (1, 1, [])
    assert seen.take(8) == []


def test_errors_in_a_row_outlive_a_batch_and_end_with_an_answer(seen: Observations) -> None:
    for _ in range(2):
        seen.served("dynamic", 1, ok=False)
        seen.take(1)
    assert seen.errors_in_a_row("dynamic") == 2
    seen.served("dynamic", 1)
    assert seen.errors_in_a_row("dynamic") == 0


def test_old_and_many_rows_are_dropped(seen: Observations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_ROWS", 10)
    now = 200 * DAY
    seen.add(now - 91 * DAY, Sync(outcome="refused"))
    for at in range(now - 30, now):
        seen.add(at, Sync(outcome="ok"))
    seen.add(now - 5, GOOD)
    seen.add(5, Entered(phase="mixed"))
    write(seen, now)
    assert [row.at for row in seen.latest("sync")] == list(range(now - 1, now - 11, -1))
    assert len(seen.latest("pair")) == 1
    assert len(seen.latest("phase")) == 1, "it may still be in force"


def test_what_cannot_be_written_does_not_pile_up(seen: Observations) -> None:
    for at in range(3_000):
        seen.add(at, GOOD)
    assert len(seen.take(0)) == module.PENDING


def test_evidence_is_what_the_last_pairs_say(seen: Observations) -> None:
    seen.add(0, Pair(builtin_us=1, dynamic_us=9_000_000, cold=True, coverage=5_000, overlap=0, age=9))
    for at in range(1, 61):
        seen.add(at * 600, GOOD)
    write(seen)
    found = gather(seen, Thresholds(), since=0)
    assert (found.pairs, found.pair_seconds, found.failing) == (61, 60 * 600, 0)
    assert (found.coverage, found.conflicts, found.age, found.errors, found.slow) == (10_000, 0, 60, 0, 0)
    assert (found.builtin_p95, found.dynamic_p95) == (100, 200)
    assert gather(seen, Thresholds(), since=10**9) == gather(seen, Thresholds(), since=2 * 10**9)


def test_a_percentile_of_a_few_pairs_is_missing_data(seen: Observations) -> None:
    for at in range(19):
        seen.add(at, GOOD)
    write(seen)
    found = gather(seen, Thresholds(), since=0)
    assert (found.dynamic_p95, found.builtin_p95) == (-1, -1)
    assert found.coverage == 10_000


def test_an_age_that_most_pairs_do_not_know_is_missing_data(seen: Observations) -> None:
    for age in (5, -1, -1):
        seen.add(1, Pair(builtin_us=1, dynamic_us=1, coverage=1, age=age))
    write(seen)
    assert gather(seen, Thresholds(), since=0).age == -1


def test_errors_count_only_while_the_other_list_answers(seen: Observations) -> None:
    failed = Pair(builtin_us=5, dynamic_error="OSError: no")
    both = Pair(builtin_error="OSError: no", dynamic_error="OSError: no")
    for pair in (failed, GOOD, failed, both, failed):
        seen.add(1, pair)
    write(seen)
    found = gather(seen, Thresholds(), since=0)
    assert (found.errors, found.failing, found.pairs) == (2, 2, 0)


def test_what_nobody_would_notice_is_not_slow(seen: Observations) -> None:
    for _ in range(60):
        seen.add(1, Pair(builtin_us=100, dynamic_us=50_000, coverage=10_000, age=1))
    write(seen)
    assert gather(seen, Thresholds(), since=0).slow == 0


def test_two_slow_pairs_among_twenty_are_soon_forgotten_and_slow_ones_in_a_row_are_not(seen: Observations) -> None:
    slow = Pair(builtin_us=100, dynamic_us=80_000, coverage=10_000, age=1)
    for pair in [*[GOOD] * 30, slow, slow, *[GOOD] * 17]:
        seen.add(1, pair)
    write(seen)
    assert gather(seen, Thresholds(), since=0).slow < 20
    for _ in range(19):
        seen.add(2, slow)
    write(seen)
    assert gather(seen, Thresholds(), since=0).slow >= 20


@pytest.mark.parametrize(("values", "percent", "expected"), [([], 95, -1), ([7], 50, 7), (list(range(1, 101)), 95, 95)])
def test_a_percentile_is_one_of_the_values(values: list[int], percent: int, expected: int) -> None:
    assert percentile(values, percent) == expected
