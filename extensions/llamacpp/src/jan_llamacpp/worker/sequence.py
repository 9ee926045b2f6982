"""What the scheduler moves about: one answer that is being made (`Sequence`), and a place in the KV cache (`Slot`).

They are apart because a sequence can lose its slot to another and take up a new one later: its tokens, its
random state and its half-finished text belong to it, the cached cells to the slot.
"""

from __future__ import annotations

from collections.abc import Sequence as AnySequence
from dataclasses import dataclass, field

from .images import Picture
from .reply import TokenLogprob
from .request import GenerateParams
from .sampling import Sampler
from .speculation import Lookup
from .state import SavedState
from .text import TextStream

__all__ = ["Sequence", "Slot", "common_prefix"]

GROWTH = 256
"""Cells an answer without a length limit reserves at a time."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One answer. `id` is its request's, `index` which of the request's `n` answers it is, `arrival` its place in the
    order in which they came. `tokens` is the prompt and all that was generated, less what was shifted out.

    `limit` is how long `tokens` may become, and `most` how many may be generated; they differ where the context is
    shifted. `open_ended`: the caller set no max_tokens. Such an answer reserves its cells bit by bit (`GROWTH`); one
    with a limit reserves all of them at admission.
    """

    id: int
    index: int
    arrival: int
    tokens: list[int]
    limit: int
    most: int
    open_ended: bool
    params: GenerateParams
    text: TextStream
    since: float
    """When it began to wait (monotonic seconds)."""
    deadline: float | None = None
    n_prompt: int = 0
    """Tokens of the prompt as it came."""
    prompt_left: int = 0
    """Tokens of the prompt that are still in `tokens`."""
    n_generated: int = 0
    sampler: Sampler | None = None
    lookup: Lookup | None = None
    pictures: dict[int, Picture] = field(default_factory=dict)
    """Those in the prompt, by the place in `tokens` where the tokens that stand for them begin."""
    saved: SavedState | None = None
    """The KV state of its conversation, read from the disk for it."""
    cached: int | None = None
    drafted: int = 0
    accepted: int = 0
    unsent: int = 0
    """Tokens generated since the last piece that was sent."""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    begun: bool = False
    """A piece of it was sent."""
    shifted: bool = False
    """A part of it was shifted out: its cells are not what reading its tokens would give."""
    erased: bool = False
    """Its conversation was deleted after it was asked for."""

    @property
    def interactive(self) -> bool:
        return self.params.priority == "interactive"

    def reserve(self) -> int:
        """Cells to keep free for it, those it has included."""
        wide = sum(picture.more_cells for picture in self.pictures.values())
        if self.open_ended:
            return wide + min(self.limit, (len(self.tokens) // GROWTH + 1) * GROWTH)
        return wide + self.limit


@dataclass(slots=True, eq=False)
class Slot:
    """A sequence number of the context. `cache`: the tokens whose keys and values its cells hold.

    `thread`: the conversation they belong to, of which `saved` tokens are on the disk; `kept`: they may be kept for it.
    `shared`: other sequences may hold some of its cells, too. `wide`: where pictures begin that have more cells than
    tokens, and how many more.
    """

    index: int
    cache: list[int] = field(default_factory=list)
    sequence: Sequence | None = None
    last_used: float = 0.0
    thread: str | None = None
    saved: int = 0
    kept: bool = True
    shared: bool = False
    wide: dict[int, int] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        return len(self.cache) + sum(self.wide.values())


def common_prefix(a: AnySequence[int], b: AnySequence[int]) -> int:
    """How many leading tokens two lists share; bisection over comparisons in C."""
    low, high = 0, min(len(a), len(b))
    if a[:high] == b[:high]:  # A conversation's next turn.
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
