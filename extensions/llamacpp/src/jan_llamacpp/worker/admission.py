"""The order in which requests get their turn: what a person waits for first, then batch jobs, each in the order it
came; and how long anybody waits.

A batch job that has waited `PATIENCE` counts as if a person waited for it: nothing waits for ever.
Decides nothing about room; that is `cache.py`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .sequence import Sequence

__all__ = ["Queue"]

PATIENCE = 60.0
"""Seconds."""


class Queue:
    """Sequences that wait. Small: every operation looks at all of them."""

    def __init__(self) -> None:
        self._waiting: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._waiting)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def in_turn(self, now: float) -> list[Sequence]:
        """Those that wait, in the order in which it is their turn."""
        return sorted(self._waiting, key=lambda each: _turn(each, now))

    def remove(self, sequence: Sequence) -> None:
        self._waiting.remove(sequence)

    def take(self, which: Callable[[Sequence], bool]) -> list[Sequence]:
        """Remove and return those for which it holds."""
        taken = [each for each in self._waiting if which(each)]
        if taken:
            self._waiting = [each for each in self._waiting if each not in taken]
        return taken


def urgent(sequence: Sequence, now: float) -> bool:
    """Whether it comes before batch jobs."""
    return sequence.interactive or now - sequence.since >= PATIENCE


def _turn(sequence: Sequence, now: float) -> tuple[bool, int]:
    return not urgent(sequence, now), sequence.arrival
