"""What the scheduler has to say, gathered into few frames.

Text may wait a moment for more of it, unless it begins or ends an answer. A small model makes a token in less time
than it takes to wake the host for it; with any other that never happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .protocol import Failed, Pieces
from .refusal import Refusal
from .reply import Finish, StepPiece, Usage
from .sequence import Sequence

__all__ = ["Emit", "Outbox"]

HOLD_SECONDS = 0.004

Emit = Callable[[Pieces | Failed], None]


class Outbox:
    """`emit` sends one frame."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._pieces: list[StepPiece] = []
        self._urgent = False
        self._sent = 0.0

    def piece(self, sequence: Sequence, text: str, step: int, finish: Finish | None = None) -> None:
        """A sequence's text, and with `finish` its end."""
        usage = None
        if finish is not None:
            usage = Usage(
                sequence.n_prompt, sequence.n_generated, sequence.cached or 0, sequence.drafted, sequence.accepted
            )
        logprobs = sequence.logprobs or None
        self._pieces.append(
            StepPiece(sequence.id, text, sequence.unsent, step, finish, usage, sequence.index, logprobs)
        )
        self._urgent = self._urgent or finish is not None or not sequence.begun
        sequence.unsent, sequence.begun = 0, True
        if logprobs:
            sequence.logprobs = []

    def failed(self, id: int, refusal: Refusal) -> None:
        """A request ended with an error; what came of it before is sent first."""
        self.flush()
        self._emit(Failed(id, refusal.type, refusal.message, refusal.data))

    def flush(self, *, when_due: bool = False) -> None:
        """Send what is there; `when_due`: unless it may wait."""
        if not self._pieces or (when_due and not self._urgent and time.monotonic() - self._sent < HOLD_SECONDS):
            return
        pieces, self._pieces, self._urgent = self._pieces, [], False
        self._sent = time.monotonic()
        self._emit(Pieces(pieces))
