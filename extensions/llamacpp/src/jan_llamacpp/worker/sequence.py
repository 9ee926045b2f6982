"""What the scheduler moves about: a generation (`Sequence`), and a place in the KV cache (`Slot`).

They are apart because a sequence can lose its slot to an older one and take up another later: its tokens, its
random state and its half-finished text belong to it, the cached cells to the slot.
"""

from __future__ import annotations

from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field

from .protocol import GenerateParams
from .sampling import Sampler
from .text import TextStream

__all__ = ["Sequence", "Slot", "common_prefix"]

GROWTH = 256
"""Cells an answer without a length limit reserves at a time."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One generation. `tokens` is the prompt and all that was generated; `limit` is how long it may become.

    `open_ended`: the caller set no max_tokens. Such an answer reserves its cells bit by bit (`GROWTH`); one
    with a limit reserves all of them at admission.
    """

    id: int
    tokens: list[int]
    limit: int
    open_ended: bool
    params: GenerateParams
    text: TextStream
    sampler: Sampler | None = None
    deadline: float | None = None
    n_prompt: int = 0
    cached: int | None = None
    pending: int = 0
    """Tokens generated since the last piece that was sent."""
    begun: bool = False
    """A piece of it was sent."""

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    def reserve(self) -> int:
        """Cells to keep free for it, those it has included."""
        if self.open_ended:
            return min(self.limit, (len(self.tokens) // GROWTH + 1) * GROWTH)
        return self.limit


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence number of the context. `cache`: the tokens whose keys and values its cells hold."""

    index: int
    cache: list[int] = field(default_factory=list)
    sequence: Sequence | None = None
    last_used: float = 0.0


def common_prefix(a: AnySequence[int], b: AnySequence[int]) -> int:
    """How many leading tokens two lists share; bisection over comparisons in C."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
