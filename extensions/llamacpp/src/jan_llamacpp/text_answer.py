"""A text completion as it comes: OpenAI's older form, without a chat template. No I/O."""

from __future__ import annotations

import time

from jan_core.types import CompletionChoice, CompletionRequest, FinishReason, TextCompletion, TextLogprobs, Usage

from .client import Piece
from .openai import IMPOSSIBLE, answer_id, total_usage

__all__ = ["TextAnswer"]


class TextAnswer:
    """Turns pieces into parts of the completion, and remembers what the whole is."""

    def __init__(self, model: str, request: CompletionRequest) -> None:
        self.id = answer_id("cmpl")
        self.created = int(time.time())
        self.model = model
        self._choices = [_Choice(index, request) for index in range(request.n)]
        self._ends: list[Piece] = []
        self._usage = Usage()
        options = request.stream_options
        self._include_usage = bool(options and options.include_usage)

    def feed(self, piece: Piece) -> list[TextCompletion]:
        """What this piece adds, as items of a stream; none when it adds nothing to see."""
        part = self._choices[piece.index].feed(piece)
        parts = [TextCompletion(self.id, self.created, self.model, [part])] if part else []
        if piece.finish is not None:
            self._ends.append(piece)
            if len(self._ends) == len(self._choices):
                self._usage = total_usage(self._ends)
                if self._include_usage:
                    parts.append(TextCompletion(self.id, self.created, self.model, [], self._usage))
        return parts

    def completion(self) -> TextCompletion:
        """The whole completion."""
        choices = [choice.whole() for choice in self._choices]
        return TextCompletion(self.id, self.created, self.model, choices, self._usage)


class _Choice:
    def __init__(self, index: int, request: CompletionRequest) -> None:
        self._index = index
        self._unsent = request.prompt if request.echo else ""
        self._text: list[str] = []
        self._length = len(self._unsent)  # of the text that the tokens so far make
        self._wanted = request.logprobs is not None
        self._all, self._new = TextLogprobs([], [], [], []), TextLogprobs([], [], [], [])
        self._finish: FinishReason | None = None

    def feed(self, piece: Piece) -> CompletionChoice | None:
        if self._wanted:
            self._note(piece)
        if piece.finish is not None:
            self._finish = "length" if piece.finish == "length" else "stop"
        text, self._unsent = self._unsent + piece.text, ""
        self._text.append(text)
        if not text and piece.finish is None:
            return None
        logprobs, self._new = self._new, TextLogprobs([], [], [], [])
        return CompletionChoice(text, self._index, self._finish, logprobs if self._wanted else None)

    def whole(self) -> CompletionChoice:
        return CompletionChoice("".join(self._text), self._index, self._finish, self._all if self._wanted else None)

    def _note(self, piece: Piece) -> None:
        for found in piece.logprobs or []:
            text = found.token.decode("utf-8", "replace")
            top = {token.decode("utf-8", "replace"): max(value, IMPOSSIBLE) for token, value in found.top}
            for columns in (self._all, self._new):
                columns.tokens.append(text)
                columns.token_logprobs.append(max(found.logprob, IMPOSSIBLE))
                columns.top_logprobs.append(top)
                columns.text_offset.append(self._length)
            self._length += len(text)
