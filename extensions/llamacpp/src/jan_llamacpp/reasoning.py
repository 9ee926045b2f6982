"""What a model thinks before it answers, told apart from its answer: `<think>…</think>` at the beginning of the text.

Where the prompt itself ends within the thoughts, the worker begins the answer's text with the opening tag, so that it
is always here. Only the first block counts, and only at the beginning: a model may well write of such tags later.
"""

from __future__ import annotations

from .markers import THINK_CLOSE, THINK_OPEN
from .toolcalls.patterns import partial

__all__ = ["ReasoningStream"]


class ReasoningStream:
    """Feed it an answer's pieces in order, then `finish` once: each gives the thoughts and the text that are certain.

    White space at the edges of the thoughts, and between them and the answer, is left out.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, text: str) -> tuple[str, str]:
        """Thoughts and text so far that were not returned yet."""
        if self._state == "answer":
            return "", text
        self._held += text
        if self._state == "start":
            begun = self._held.lstrip()
            if len(begun) < len(THINK_OPEN) and THINK_OPEN.startswith(begun):
                return "", ""
            if not begun.startswith(THINK_OPEN):
                return "", self._rest("answer")
            self._held, self._state = begun[len(THINK_OPEN) :], "lead"
        thoughts = self._thoughts() if self._state != "after" else ""
        if self._state == "after":
            self._held = self._held.lstrip()
            if self._held:
                return thoughts, self._rest("answer")
        return thoughts, ""

    def finish(self) -> tuple[str, str]:
        """What was held. Thoughts that were never ended are thoughts."""
        state, rest = self._state, self._rest("answer")
        return (rest.rstrip(), "") if state in ("lead", "thoughts") else ("", rest)

    def _thoughts(self) -> str:
        if self._state == "lead":
            self._held = self._held.lstrip()
            if not self._held:
                return ""
            self._state = "thoughts"
        inside, close, after = self._held.partition(THINK_CLOSE)
        if close:
            self._held, self._state = after, "after"
            return inside.rstrip()
        # White space may turn out to be the end; the tag may have begun.
        sure = len(self._held) - partial(self._held, THINK_CLOSE)
        sure = len(self._held[:sure].rstrip())
        thoughts, self._held = self._held[:sure], self._held[sure:]
        return thoughts

    def _rest(self, state: str) -> str:
        self._state = state
        held, self._held = self._held, ""
        return held
