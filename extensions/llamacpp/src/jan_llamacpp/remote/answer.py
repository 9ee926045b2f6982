"""One remote answer as it comes: events in, the house's chunks out, and in the end the whole. No I/O.

An answer is whole when each of its choices has said why it ended, or the stream has its end mark. Anything less is an
error: half an answer must not pass for a short one.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

import msgspec

from jan_core.types import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    ChunkChoice,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)

from .errors import RemoteAnswerInvalid, RemoteFailed, RemoteInterrupted
from .wire import WireCall, WireChoice, WireChunk, WirePart, error_text, finish_reason, logprobs_of, text_of, usage_of

__all__ = ["RemoteAnswer"]

DONE = b"[DONE]"


@dataclass(slots=True)
class _Choice:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, list[str]] = field(default_factory=dict)
    """By index: id, name, then the parts of the arguments."""
    finish: FinishReason | None = None
    logprobs: list[ChatLogprob] = field(default_factory=list)


class RemoteAnswer:
    """`model` is what the house calls the model; the chunks say it, so that everybody sees who answered.

    `include_usage`: whether the caller asked for a last chunk with the token counts. `key`: what no message may hold.
    """

    def __init__(self, remote: str, model: str, *, include_usage: bool, key: str | None) -> None:
        self._remote = remote
        self._key = key
        self._include_usage = include_usage
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())
        self._model = model
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._done = False

    @property
    def ended(self) -> bool:
        """Whether the stream's end mark came: nothing after it means anything."""
        return self._done

    def feed(self, event: bytes) -> ChatChunk | None:
        """The chunk that an event comes to, if it says anything. Raises RemoteAnswerInvalid and RemoteFailed."""
        if event.strip() == DONE:
            self._done = True
            return None
        wire = self._decode(event)
        choices = [made for choice in wire.choices or [] if (made := self._chunk_choice(choice)) is not None]
        return ChatChunk(self._id, self._created, self._model, choices) if choices else None

    def whole(self, body: bytes) -> ChatChunk | None:
        """As `feed`, for the body of an endpoint that does not stream."""
        chunk = self.feed(body)
        self._done = True
        return chunk

    def last(self) -> ChatChunk | None:
        """The chunk with the token counts, if they were asked for. Raises RemoteInterrupted for half an answer."""
        ended = self._choices and all(choice.finish for choice in self._choices.values())
        if not ended and not (self._done and self._choices):
            raise RemoteInterrupted(
                f"{self._remote} ended its answer in the middle", remote=self._remote, reason="truncated"
            )
        return ChatChunk(self._id, self._created, self._model, [], self._used()) if self._include_usage else None

    def completion(self) -> ChatCompletion:
        """The whole answer."""
        choices = [self._whole_choice(index, choice) for index, choice in sorted(self._choices.items())]
        return ChatCompletion(self._id, self._created, self._model, choices, self._used())

    def _used(self) -> Usage:
        return self._usage or Usage()

    def _decode(self, event: bytes) -> WireChunk:
        try:
            wire = msgspec.json.decode(event, type=WireChunk)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteAnswerInvalid(
                f"{self._remote} sent what is no part of an answer: {error}", remote=self._remote, reason="malformed"
            ) from None
        if wire.error is not None or any(choice.finish_reason == "error" for choice in wire.choices or []):
            said = error_text(wire.error, self._key) or "it does not say why"
            raise RemoteFailed(f"{self._remote} failed amid its answer: {said}", remote=self._remote)
        if wire.usage is not None:
            self._usage = usage_of(wire.usage)
        return wire

    def _chunk_choice(self, wire: WireChoice) -> ChunkChoice | None:
        part = wire.delta or wire.message or WirePart()
        known = self._choices.get(wire.index)
        choice = self._choices.setdefault(wire.index, _Choice())
        text, reasoning = text_of(part), part.reasoning_content or part.reasoning or ""
        calls = [self._call(choice, at, call) for at, call in enumerate(part.tool_calls or [])]
        choice.text.append(text)
        choice.reasoning.append(reasoning)
        finish = finish_reason(wire.finish_reason) if wire.finish_reason else None
        if finish is not None:
            choice.finish = "tool_calls" if choice.calls and finish == "stop" else finish
        logprobs = logprobs_of(wire)
        choice.logprobs += (logprobs and logprobs.content) or []
        if known is not None and not (text or reasoning or calls or finish or logprobs):
            return None
        delta = ChatDelta(
            role=None if known else "assistant",
            content=text or None,
            tool_calls=calls or None,
            reasoning_content=reasoning or None,
        )
        return ChunkChoice(delta, wire.index, choice.finish if finish else None, logprobs)

    def _call(self, choice: _Choice, position: int, wire: WireCall) -> ToolCallDelta:
        index = position if wire.index is None else wire.index
        known = choice.calls.setdefault(index, ["", ""])
        name = (wire.function.name if wire.function else None) or ""
        arguments = (wire.function.arguments if wire.function else None) or ""
        known[0] = known[0] or wire.id or ""
        known[1] = known[1] or name
        known.append(arguments)
        function = FunctionDelta(name or None, arguments)
        return ToolCallDelta(index, function, wire.id or None, "function" if wire.id else None)

    @staticmethod
    def _whole_choice(index: int, choice: _Choice) -> ChatChoice:
        calls = [
            ToolCall(id, FunctionCall(name, "".join(arguments) or "{}"), index=at)
            for at, (id, name, *arguments) in sorted(choice.calls.items())
        ]
        text = "".join(choice.text)
        message = ChatMessage(
            role="assistant",
            content=text if text or not calls else None,
            tool_calls=calls or None,
            reasoning_content="".join(choice.reasoning) or None,
        )
        logprobs = ChatLogprobs(choice.logprobs) if choice.logprobs else None
        return ChatChoice(message, index, choice.finish or "stop", logprobs)
