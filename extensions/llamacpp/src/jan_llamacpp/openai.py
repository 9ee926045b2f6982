"""Between OpenAI's objects and the worker's: requests one way, pieces of an answer the other. No I/O.

What the engine here cannot do is refused and not passed over: a forced tool choice, a response format, and
images end in InvalidParams.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from jan_core import InvalidParams
from jan_core.types import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    CompletionRequest,
    FunctionCall,
    Tool,
    ToolCall,
    Usage,
)
from jan_core.types import chat as types

from .client import GenerateParams, Piece, Prompt, Sampling
from .toolcalls import ToolCallStream

__all__ = ["Answer", "answer_id", "chat_params", "chat_prompt", "completion_params", "usage_of"]

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty")


def chat_params(request: ChatRequest, queue_seconds: float) -> GenerateParams:
    """The worker's form of a chat request. Raises InvalidParams for what is not supported."""
    if request.response_format and request.response_format.get("type") != "text":
        raise InvalidParams(
            "response_format is not supported by this engine yet: only text is", path="$.response_format"
        )
    tools = request.tools
    if request.tool_choice == "none":
        tools = None
    elif request.tool_choice not in (None, "auto"):
        raise InvalidParams("only the tool choices auto and none are supported", path="$.tool_choice")
    return GenerateParams(
        chat_prompt(request.messages, tools),
        sampling=_sampling(request),
        max_tokens=request.limit(),
        stop=request.stops(),
        queue_seconds=queue_seconds,
        thread=request.thread_id,
    )


def completion_params(request: CompletionRequest, queue_seconds: float) -> GenerateParams:
    """The worker's form of a text completion. Raises InvalidParams."""
    return GenerateParams(
        Prompt(text=request.prompt),
        sampling=_sampling(request),
        max_tokens=request.max_tokens,
        stop=request.stops(),
        queue_seconds=queue_seconds,
    )


def chat_prompt(messages: Iterable[ChatMessage], tools: list[Tool] | None = None) -> Prompt:
    """Messages and tools as the plain objects a chat template works on. Raises InvalidParams for images."""
    plain: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        if isinstance(message.content, list) and any(part.type != "text" for part in message.content):
            raise InvalidParams("this engine takes text only", path=f"$.messages[{number}].content")
        fields = msgspec.to_builtins(message)
        if message.role == "developer":  # OpenAI's newer name; templates know the older one
            fields["role"] = "system"
        plain.append(fields)
    return Prompt(messages=plain, tools=msgspec.to_builtins(tools) if tools else None)


def answer_id(kind: str) -> str:
    """A fresh id of an answer, in OpenAI's form."""
    return f"{kind}-{secrets.token_hex(12)}"


def usage_of(piece: Piece) -> Usage:
    """The last piece's token counts."""
    used = piece.usage
    if used is None:
        return Usage()
    return Usage(
        used.prompt, used.completion, used.prompt + used.completion, types.TokensDetails(cached_tokens=used.cached)
    )


def _sampling(request: types.Sampling) -> Sampling:
    given = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    if request.seed is not None:
        given["seed"] = request.seed % 2**32
    if request.logit_bias:
        try:
            given["logit_bias"] = {int(token): bias for token, bias in request.logit_bias.items()}
        except ValueError:
            raise InvalidParams("the keys of logit_bias are token numbers", path="$.logit_bias") from None
    return Sampling(**given)


class Answer:
    """One chat answer as it comes: turns pieces into chunks, and remembers what the whole answer is.

    With `tools`, text from a tool call on is held back and becomes the call at the end.
    """

    def __init__(self, model: str, *, tools: bool = False, include_usage: bool = False) -> None:
        self.id = answer_id("chatcmpl")
        self.created = int(time.time())
        self.model = model
        self.usage = Usage()
        self.finish_reason: types.FinishReason | None = None
        self._calls: list[ToolCall] = []
        self._text: list[str] = []
        self._stream = ToolCallStream() if tools else None
        self._include_usage = include_usage
        self._begun = False

    def feed(self, piece: Piece) -> list[ChatChunk]:
        """The chunks that this piece makes; none when all of it is held back."""
        text = self._stream.feed(piece.text) if self._stream else piece.text
        if piece.finish is None:
            return [self._delta(text)] if text or not self._begun else []
        if self._stream:
            rest, calls = self._stream.finish()
            text += rest
            self._calls = [
                ToolCall(call.id, FunctionCall(call.name, call.arguments), index=number)
                for number, call in enumerate(calls)
            ]
        chunks = [self._delta(text)] if text or not self._begun else []
        if self._calls:
            chunks.append(self._chunk(ChatDelta(tool_calls=self._calls)))
        self.usage = usage_of(piece)
        self.finish_reason = "tool_calls" if self._calls else "length" if piece.finish == "length" else "stop"
        chunks.append(self._chunk(ChatDelta(), self.finish_reason))
        if self._include_usage:
            chunks.append(ChatChunk(self.id, self.created, self.model, [], self.usage))
        return chunks

    def completion(self) -> ChatCompletion:
        """The whole answer."""
        text = "".join(self._text)
        message = ChatMessage("assistant", text or (None if self._calls else ""), tool_calls=self._calls or None)
        choice = ChatChoice(message, finish_reason=self.finish_reason)
        return ChatCompletion(self.id, self.created, self.model, [choice], self.usage)

    def _delta(self, text: str) -> ChatChunk:
        self._text.append(text)
        role = None if self._begun else "assistant"
        self._begun = True
        return self._chunk(ChatDelta(role=role, content=text))

    def _chunk(self, delta: ChatDelta, finish: types.FinishReason | None = None) -> ChatChunk:
        return ChatChunk(self.id, self.created, self.model, [ChunkChoice(delta, finish_reason=finish)])
