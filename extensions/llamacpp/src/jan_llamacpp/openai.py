"""Between OpenAI's objects and the worker's: requests one way, pieces of answers the other. No I/O.

What the engine here cannot do is refused and not passed over: sound ends in InvalidParams, and so does a request for
several things that exclude each other.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from jan_core import InvalidParams
from jan_core.types import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatLogprob,
    ChatLogprobs,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    CompletionDetails,
    CompletionRequest,
    FinishReason,
    FunctionCall,
    FunctionDelta,
    TextPart,
    TokensDetails,
    Tool,
    ToolCall,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from jan_core.types import generation as types

from .asked import answer_grammar, formatted, tools_offered
from .chat_images import without_images
from .client import GenerateParams, ModelInfo, Piece, Prompt, Sampling, TokenLogprob
from .harmony import HarmonyStream
from .reasoning import ReasoningStream
from .toolcalls import FORMS, CallPart, ToolCallStream

__all__ = ["Answer", "answer_id", "chat_params", "chat_prompt", "completion_params", "total_usage"]

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "frequency_penalty", "presence_penalty")
IMPOSSIBLE = -9999.0
"""OpenAI's word for the log-probability of what cannot be: JSON has no infinity."""


def chat_params(request: ChatRequest, queue_seconds: float, info: ModelInfo) -> GenerateParams:
    """The worker's form of a chat request to the model of `info`. Raises InvalidParams for what is not supported."""
    if request.top_logprobs is not None and not request.logprobs:
        raise InvalidParams("top_logprobs needs logprobs", path="$.top_logprobs")
    extra = dict(request.chat_template_kwargs or {})
    return GenerateParams(
        chat_prompt(request.messages, tools_offered(request), extra),
        sampling=_sampling(request),
        max_tokens=request.limit(),
        stop=request.stops(),
        queue_seconds=queue_seconds,
        n=request.n,
        priority=request.priority,
        overflow=request.overflow,
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        grammar=answer_grammar(request, info),
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
        n=request.n,
        priority=request.priority,
        overflow=request.overflow,
        logprobs=request.logprobs,
        grammar=answer_grammar(request, None),
    )


def chat_prompt(
    messages: Iterable[ChatMessage], tools: list[Tool] | None = None, extra: dict[str, Any] | None = None
) -> Prompt:
    """Messages and tools as the plain objects a chat template works on, and the images in the messages.

    Raises InvalidParams for images elsewhere, and for sound.
    """
    plain: list[dict[str, Any]] = []
    images: list[bytes] = []
    messages = list(messages)
    parts = [part for message in messages if isinstance(message.content, list) for part in message.content]
    plain_text = all(isinstance(part, TextPart) for part in parts)
    for number, message in enumerate(messages):
        if message.content is not None and not plain_text:
            text = without_images(message.content, images, f"$.messages[{number}].content")
            message = replace(message, content=text)
        fields = msgspec.to_builtins(message)
        if message.role == "developer":  # OpenAI's newer name; templates know the older one
            fields["role"] = "system"
        plain.append(fields)
    offered = msgspec.to_builtins(tools) if tools else None
    return Prompt(messages=plain, tools=offered, extra=extra or {}, images=images)


def answer_id(kind: str) -> str:
    """A fresh id of an answer, in OpenAI's form."""
    return f"{kind}-{secrets.token_hex(12)}"


def total_usage(ends: Iterable[Piece]) -> Usage:
    """The token counts of a request, from the last pieces of its answers."""
    used = [end.usage for end in sorted(ends, key=lambda end: end.index) if end.usage is not None]
    if not used:
        return Usage()
    # The answers share the prompt, which is read once: what was cached is what the first of them found.
    prompt, completion = used[0].prompt, sum(each.completion for each in used)
    accepted = sum(each.accepted for each in used)
    details = CompletionDetails(accepted, sum(each.drafted for each in used) - accepted)
    return Usage(prompt, completion, prompt + completion, TokensDetails(used[0].cached), details)


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
    """One chat answer (or `n` of them) as it comes: turns pieces into chunks, and remembers what the whole is.

    `request` and `info` say what the text means: whether thoughts and tool calls are taken out of it, and how the
    model writes them; `sure`: that a grammar makes its calls well-formed.
    """

    def __init__(self, model: str, request: ChatRequest, info: ModelInfo, *, sure: bool) -> None:
        self.id = answer_id("chatcmpl")
        self.created = int(time.time())
        self.model = model
        self.usage = Usage()
        self._choices = [_Choice(index, request, info, sure) for index in range(request.n)]
        self._ends: list[Piece] = []
        options = request.stream_options
        self._include_usage = bool(options and options.include_usage)

    def feed(self, piece: Piece) -> list[ChatChunk]:
        """The chunks that this piece makes; none when all of it is held back."""
        chunks = [self._chunk([part]) for part in self._choices[piece.index].feed(piece)]
        if piece.finish is not None:
            self._ends.append(piece)
            if len(self._ends) == len(self._choices):
                self.usage = total_usage(self._ends)
                if self._include_usage:
                    chunks.append(self._chunk([], self.usage))
        return chunks

    def completion(self) -> ChatCompletion:
        """The whole answer."""
        choices = [choice.whole() for choice in self._choices]
        return ChatCompletion(self.id, self.created, self.model, choices, self.usage)

    def _chunk(self, choices: list[ChunkChoice], usage: Usage | None = None) -> ChatChunk:
        return ChatChunk(self.id, self.created, self.model, choices, usage)


class _Choice:
    """One of the answers to a request."""

    def __init__(self, index: int, request: ChatRequest, info: ModelInfo, sure: bool) -> None:
        self._index = index
        apart = request.reasoning_format != "none"
        self._reasoning: HarmonyStream | ReasoningStream | None = ReasoningStream() if apart else None
        if FORMS[info.tools].channels:
            self._reasoning = HarmonyStream(apart=apart)
        offered = tools_offered(request)
        self._tools = None
        if offered:
            self._tools = ToolCallStream(
                info.tools,
                {tool.function.name: tool.function.parameters for tool in offered},
                parallel=request.parallel_tool_calls is not False,
                sure=sure,
                alone=formatted(request),
            )
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[ToolCall] = []
        self._logprobs: list[ChatLogprob] | None = [] if request.logprobs else None
        self._unsent: list[ChatLogprob] = []
        self._finish: FinishReason | None = None
        self._begun = False

    def feed(self, piece: Piece) -> list[ChunkChoice]:
        thoughts, text = self._reasoning.feed(piece.text) if self._reasoning else ("", piece.text)
        if piece.finish is not None and self._reasoning:
            more, rest = self._reasoning.finish()
            thoughts, text = thoughts + more, text + rest
        parts: list[CallPart] = []
        if self._tools:
            text, parts = self._tools.feed(text)
            if piece.finish is not None:
                rest, late = self._tools.finish()
                text, parts = text + rest, parts + late
        if self._logprobs is not None:
            self._unsent += [_logprob(each) for each in piece.logprobs or []]
        found = []
        if thoughts or text or parts or (not self._begun and (piece.tokens or piece.finish)):
            found.append(self._delta(thoughts, text, self._deltas(parts)))
        if piece.finish is not None:
            self._finish = "length" if piece.finish == "length" else "tool_calls" if self._calls else "stop"
            found.append(ChunkChoice(ChatDelta(), self._index, self._finish, self._sent_logprobs()))
        return found

    def whole(self) -> ChatChoice:
        text, thoughts = "".join(self._text), "".join(self._thoughts)
        message = ChatMessage(
            "assistant",
            text or (None if self._calls else ""),
            tool_calls=self._calls or None,
            reasoning_content=thoughts or None,
        )
        logprobs = ChatLogprobs(self._logprobs) if self._logprobs is not None else None
        return ChatChoice(message, self._index, self._finish, logprobs)

    def _delta(self, thoughts: str, text: str, calls: list[ToolCallDelta]) -> ChunkChoice:
        self._thoughts.append(thoughts)
        self._text.append(text)
        role, self._begun = (None if self._begun else "assistant"), True
        content = text if text or not (thoughts or calls) else None
        delta = ChatDelta(role, content, calls or None, thoughts or None)
        return ChunkChoice(delta, self._index, None, self._sent_logprobs())

    def _sent_logprobs(self) -> ChatLogprobs | None:
        unsent, self._unsent = self._unsent, []
        if self._logprobs is None or not unsent:
            return None
        self._logprobs += unsent
        return ChatLogprobs(unsent)

    def _deltas(self, parts: list[CallPart]) -> list[ToolCallDelta]:
        """What these parts add to the calls, one delta for each call."""
        made: list[ToolCallDelta] = []
        for part in parts:
            if part.id is not None and part.name is not None:
                self._calls.append(ToolCall(part.id, FunctionCall(part.name, ""), index=part.index))
                made.append(ToolCallDelta(part.index, FunctionDelta(part.name, ""), part.id, "function"))
            elif not made or made[-1].index != part.index:
                made.append(ToolCallDelta(part.index, FunctionDelta(arguments="")))
            self._calls[part.index].function.arguments += part.arguments
            made[-1].function.arguments = (made[-1].function.arguments or "") + part.arguments
        return made


def _logprob(found: TokenLogprob) -> ChatLogprob:
    top = [TopLogprob(*_token(token, value)) for token, value in found.top]
    return ChatLogprob(*_token(found.token, found.logprob), top)


def _token(token: bytes, logprob: float) -> tuple[str, float, list[int]]:
    return token.decode("utf-8", "replace"), max(logprob, IMPOSSIBLE), list(token)
