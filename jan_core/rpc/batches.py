"""Collects the answers of one JSON-RPC batch: they leave as one array, when the last request of it is answered."""

from __future__ import annotations

from collections.abc import Callable

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
        if self._sealed and not self._open and self._answers:
            answers, self._answers = self._answers, []
            self._send(b"[" + b",".join(answers) + b"]")
