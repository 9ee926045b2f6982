"""What comes of one generation, on its way from the worker's pipe to whoever asked.

The cost of a piece is that of the host's event loop for each token of each answer: one list, one future.
"""

from __future__ import annotations

import asyncio

import msgspec

from jan_core.errors import JanError

from .worker.reply import Finish, TokenLogprob, Usage

__all__ = ["Piece", "PieceStream"]


class Piece(msgspec.Struct, frozen=True):
    """A part of answer `index`. `tokens`: how many it took. `finish` and `usage` are set on the last, whose text
    may be empty. `logprobs`: of its tokens, where they were asked for.

    `step` is the scheduler's step it came from: pieces of different answers with the same number were decoded
    together.
    """

    text: str
    tokens: int
    step: int
    finish: Finish | None = None
    usage: Usage | None = None
    index: int = 0
    logprobs: list[TokenLogprob] | None = None


class PieceStream:
    """The pieces of one generation that wait for their consumer. `left`: its answers that have not ended."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._pieces: list[Piece] = []
        self._error: JanError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self._wake()

    def fail(self, error: JanError) -> None:
        self._error = error
        self._wake()

    async def take(self) -> list[Piece]:
        """All that is there, at least one piece. Raises the error once the pieces before it are taken."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        pieces, self._pieces = self._pieces, []
        return pieces

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
