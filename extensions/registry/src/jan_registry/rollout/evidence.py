"""From what was observed to the whole numbers a gate judges. Reads the disk; judges nothing."""

from __future__ import annotations

from .gates import Evidence, Thresholds
from .observations import Observations, Pair, percentile

__all__ = ["gather"]


def gather(observations: Observations, thresholds: Thresholds, *, since: int, errors: int = 0) -> Evidence:
    """What was seen since the phase began at `since`. `errors`: answers that were to be served from the dynamic list
    and failed, one after the other until now. Blocks; raises StorageError."""
    syncs, sync_seconds, refusals = observations.run("sync", since)
    good, pair_seconds, failing = observations.run("pair", since)
    last = [row.seen for row in observations.latest("pair", since, thresholds.pairs)]
    pairs = [seen for seen in last if isinstance(seen, Pair)]
    warm = [pair for pair in pairs if not pair.cold and pair.dynamic_us >= 0 and pair.builtin_us >= 0]
    compared = [pair for pair in pairs if pair.coverage >= 0]
    enough = warm if len(warm) >= thresholds.window else []  # a percentile of next to nothing is missing data
    return Evidence(
        syncs=syncs,
        sync_seconds=sync_seconds,
        refusals=refusals,
        pairs=good,
        pair_seconds=pair_seconds,
        failing=failing,
        coverage=min((pair.coverage for pair in compared), default=-1),
        conflicts=sum(pair.conflicts for pair in compared[: thresholds.window]) if compared else -1,
        dynamic_p95=percentile([pair.dynamic_us for pair in enough], 95),
        builtin_p95=percentile([pair.builtin_us for pair in enough], 95),
        slow=_slow(warm, thresholds),
        age=_median_age(pairs),
        errors=max(errors, _failed_last(pairs)),
    )


def _median_age(pairs: list[Pair]) -> int:
    """-1 where more than half of them do not know: an unknown age counts as endless."""
    ages = sorted((pair.age < 0, pair.age) for pair in pairs)
    return ages[(len(ages) - 1) // 2][1] if ages else -1


def _slow(warm: list[Pair], thresholds: Thresholds) -> int:
    """How many of the newest pairs in a row found the dynamic list slow, over the window that ends with the pair."""
    for place in range(len(warm)):
        window = warm[place : place + thresholds.window]
        dynamic = percentile([pair.dynamic_us for pair in window], 95)
        builtin = percentile([pair.builtin_us for pair in window], 95)
        if dynamic <= max(thresholds.p95, builtin * thresholds.slow_percent // 100):
            return place
    return len(warm)


def _failed_last(pairs: list[Pair]) -> int:
    """How many of the newest pairs the dynamic list failed while the built-in one answered."""
    count = 0
    for pair in pairs:
        if pair.dynamic_error and not pair.builtin_error:
            count += 1
        elif not pair.dynamic_error:
            break
    return count
