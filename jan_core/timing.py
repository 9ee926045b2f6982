"""How long something takes, as a record that costs next to nothing to keep: counts, a sum, and a small histogram.

Percentiles are derived from the histogram when they are read, so that recording is a handful of additions. This layer
does not know what is timed (`dispatch.py`: hooks; the peers: methods) nor how it is shown (`metrics.py`). A record
holds numbers and no reference to the code it is about, so a retired generation is not kept alive by its figures.
"""

from __future__ import annotations

from math import ceil, exp2, log2

from msgspec import Struct

__all__ = ["ERROR", "LONGEST", "SHORTEST", "Figures", "Timing", "Timings"]

PER_OCTAVE = 8
"""Buckets for each doubling of the time: fine enough that an estimate is off by less than the noise between two runs,
coarse enough that a record is about 2 kB."""

SHORTEST, LONGEST = 2.0**-20, 2.0**7
"""Seconds (1 us to 128 s) between which times are told apart; what is outside counts as the nearer of the two."""

ERROR = 2 ** (0.5 / PER_OCTAVE) - 1
"""By how much, relatively, a percentile between SHORTEST and LONGEST can be off: 4.4 %."""

_OFFSET = -PER_OCTAVE * log2(SHORTEST)
_BUCKETS = int(PER_OCTAVE * log2(LONGEST) + _OFFSET) + 1  # the last one: LONGEST and what exceeds it


class Figures(Struct, rename="camel", frozen=True):
    """What is known of the calls of one thing. Times in seconds, of calls that have ended; `p50` and `p95` are within
    4.4 % of the exact nearest-rank percentile for times between 1 us and 128 s. `generation` is the one that the
    figures are of (0: the host's own)."""

    generation: int
    calls: int
    failures: int
    timeouts: int
    in_flight: int
    total: float
    longest: float
    p50: float
    p95: float


class Timing:
    """The record. Not for several threads at once: everything is recorded on the event loop."""

    __slots__ = ("_buckets", "calls", "failures", "generation", "in_flight", "longest", "timeouts", "total")

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.calls = self.failures = self.timeouts = 0
        self.in_flight = 0
        """For whoever begins the calls to count up and down; `add` does not touch it."""
        self.total = self.longest = 0.0
        self._buckets = [0] * _BUCKETS

    def add(self, seconds: float, failed: bool = False, timed_out: bool = False) -> None:
        """One call has ended, after `seconds`. A call that passed its deadline is both failed and timed out."""
        self.calls += 1
        self.total += seconds
        if seconds > self.longest:
            self.longest = seconds
        if failed:
            self.failures += 1
            if timed_out:
                self.timeouts += 1
        if SHORTEST <= seconds < LONGEST:
            self._buckets[int(log2(seconds) * PER_OCTAVE + _OFFSET)] += 1
        else:
            self._buckets[0 if seconds < SHORTEST else -1] += 1

    def percentile(self, share: float) -> float:
        """The time that `share` (0 to 1) of the calls did not exceed, in seconds; 0 without calls.

        It is the geometric middle of the bucket that holds the call of rank ⌈share·calls⌉, so it is off by ERROR at
        most; it is never more than the longest.
        """
        rank = max(1, ceil(share * self.calls))
        for bucket, count in enumerate(self._buckets):
            rank -= count
            if rank <= 0:
                return min(exp2((bucket + 0.5 - _OFFSET) / PER_OCTAVE), self.longest)
        return 0.0

    def figures(self) -> Figures:
        return Figures(
            self.generation,
            self.calls,
            self.failures,
            self.timeouts,
            self.in_flight,
            self.total,
            self.longest,
            self.percentile(0.5),
            self.percentile(0.95),
        )


class Timings:
    """Timings by name (a hook's of one extension, or a method's).

    Each is of one generation of code: it is begun anew when a newer generation asks for it, because what the old code
    took says nothing about the new. Until then it is kept, so that the figures of an extension that was quarantined
    can still be read.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, Timing] = {}

    def of(self, name: str, generation: int = 0) -> Timing:
        """The record to add to. Hold on to it for the length of one call, not longer.

        A generation that drains while a newer one serves gets a record that nobody reads.
        """
        kept = self._kept.get(name)
        if kept is not None and kept.generation == generation:
            return kept
        timing = Timing(generation)
        if kept is None or kept.generation < generation:
            self._kept[name] = timing
        return timing

    def figures(self) -> dict[str, Figures]:
        """By name, in the order of the names."""
        return {name: self._kept[name].figures() for name in sorted(self._kept)}
