"""Conversations that are not going on, out of the KV cache's way: their cells, copied to ordinary memory.

In a unified cache every token looks over the cells of all sequences, the idle ones too: a dozen idle conversations
make a small model a third slower. To copy cells out and in again takes some milliseconds for a thousand tokens, which
is far less than reading them anew.

Nothing here knows contexts; `cache.py` decides what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .state import SavedState

__all__ = ["Remembered", "Remembrance"]


@dataclass(slots=True, eq=False)
class Remembrance:
    """A conversation's state; `thread` and `saved` are those of the slot it was in (`Slot`)."""

    state: SavedState
    thread: str | None
    saved: int


class Remembered:
    """At most `budget` bytes of them: the longest unused go first."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._kept: list[Remembrance] = []  # the longest unused first

    def __iter__(self) -> Iterator[Remembrance]:
        return iter(self._kept)

    def add(self, one: Remembrance) -> None:
        """Keep it, unless it is too large."""
        if not self.has_place_for(len(one.state.data)):
            return
        self._kept.append(one)
        while sum(len(each.state.data) for each in self._kept) > self.budget:
            del self._kept[0]

    def has_place_for(self, size: int) -> bool:
        """Whether a state of so many bytes would be kept, if need be in place of older ones."""
        return size <= self.budget

    def nearest(self, usable: Callable[[list[int]], int]) -> Remembrance | None:
        """The one of which most is `usable`; None when nothing is of any."""
        best = max(self._kept, key=lambda each: usable(each.state.tokens), default=None)
        return best if best is not None and usable(best.state.tokens) else None

    def remove(self, one: Remembrance) -> None:
        self._kept.remove(one)

    def drop_thread(self, thread: str) -> None:
        """A conversation was deleted."""
        self._kept = [each for each in self._kept if each.thread != thread]
