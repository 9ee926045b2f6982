"""Collects the answers of one JSON-RPC batch: they leave as one array, when the last request of it is answered.

As several, if one would be longer than a message may be.
"""

from __future__ import annotations

from collections.abc import Callable

from .framing import MAX_MESSAGE

__all__ = ["Batch"]


class Batch:
    """The answers of a batch. `send` gets the array; a batch of nothing but notifications sends none."""

    __slots__ = ("_answers", "_open", "_sealed", "_send")

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._answers: list[bytes] = []
        self._open = 0
        self._sealed = False

    def expect(self) -> None:
        """One more answer is owed."""
        self._open += 1

    def answer(self, text: bytes) -> None:
        """An answer that was expected."""
        self._open -= 1
        self._answers.append(text)
        self._finish()

    def refuse(self, text: bytes) -> None:
        """The answer to a member that never became a request."""
        self._answers.append(text)

    def seal(self) -> None:
        """All members were looked at."""
        self._sealed = True
        self._finish()

    def _finish(self) -> None:
        if not self._sealed or self._open:
            return
        together: list[bytes] = []
        size = 1
        for answer in self._answers:
            if together and size + len(answer) + 1 > MAX_MESSAGE:
                self._send(b"[" + b",".join(together) + b"]")
                together, size = [], 1
            together.append(answer)
            size += len(answer) + 1
        self._answers.clear()
        if together:
            self._send(b"[" + b",".join(together) + b"]")
