"""OpenAI's chat-completion objects: what `chat.complete` takes, streams and returns.

Field names and meanings are those of the OpenAI API reference (POST /v1/chat/completions), so that the HTTP
surface is a thin skin. Unknown fields of a request are ignored, as OpenAI-compatible servers do; the sampling
fields `top_k`, `min_p` and `repeat_penalty` are llama.cpp's and are accepted beside OpenAI's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

__all__ = [
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatDelta",
    "ChatMessage",
    "ChatRequest",
    "ChunkChoice",
    "CompletionChoice",
    "CompletionRequest",
    "ContentPart",
    "FinishReason",
    "FunctionCall",
    "Sampling",
    "StreamOptions",
    "TextCompletion",
    "TokensDetails",
    "Tool",
    "ToolCall",
    "ToolFunction",
    "Usage",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Probability = Annotated[float, Meta(ge=0, le=1)]


class ContentPart(Struct, omit_defaults=True):
    """One part of a multi-part message: `{"type": "text", "text": …}` or an image."""

    type: str
    text: str = ""
    image_url: dict[str, Any] | None = None


class FunctionCall(Struct):
    """A call the model asks for; `arguments` is a JSON text, as OpenAI has it."""

    name: str
    arguments: str = "{}"


class ToolCall(Struct):
    id: str
    function: FunctionCall
    type: str = "function"
    index: int = 0


class ToolFunction(Struct, omit_defaults=True):
    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    function: ToolFunction
    type: str = "function"


class ChatMessage(Struct, omit_defaults=True):
    """One message of a conversation. `role` is `system`, `developer`, `user`, `assistant` or `tool`."""

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def text(self) -> str:
        """The textual content: parts of other kinds are left out."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class StreamOptions(Struct, omit_defaults=True):
    include_usage: bool | None = False


class Sampling(Struct, omit_defaults=True, kw_only=True):
    """What decides the next token. None: the model's or the engine's own default."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Probability | None = None
    seed: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: dict[str, float] | None = None

    def stops(self) -> list[str]:
        """The stop strings as a list; empty strings are left out (they would stop everything)."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stop if text]


class ChatRequest(Sampling, omit_defaults=True, kw_only=True):
    """A chat-completion request. `model` empty: the default model. `stream`: send chunks as they come."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    n: Annotated[int, Meta(ge=1, le=1)] = 1
    user: str | None = None
    thread_id: str | None = None
    """The conversation this belongs to, when there is one: routing and caches may use it. Not OpenAI's."""
    sensitivity: Literal["normal", "sensitive"] = "normal"
    """`sensitive` never leaves this machine, whatever the policy. Not OpenAI's."""

    def limit(self) -> int | None:
        """How many tokens may be generated: OpenAI's newer name wins over the older; None: what the window holds."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TokensDetails(Struct):
    cached_tokens: int = 0


class Usage(Struct):
    """Token counts. `prompt_tokens_details.cached_tokens` were already in the KV cache and cost nothing."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: TokensDetails = field(default_factory=TokensDetails)


class ChatChoice(Struct):
    message: ChatMessage
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(Struct, tag_field="object", tag="chat.completion"):
    """The answer of `chat.complete`. `created` is in seconds since the epoch."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Struct, omit_defaults=True):
    role: str | None = None
    content: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None


class ChunkChoice(Struct):
    delta: ChatDelta
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = None


class ChatChunk(Struct, omit_defaults=True, tag_field="object", tag="chat.completion.chunk"):
    """One item of the stream. A chunk with no choices carries the usage, when it was asked for."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None

    def text(self) -> str:
        """The text this chunk adds to the answer."""
        return "".join(choice.delta.content or "" for choice in self.choices)


class CompletionRequest(Sampling, omit_defaults=True, kw_only=True):
    """A plain text completion: the prompt is continued as it stands, without a chat template."""

    prompt: str
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    echo: bool = False
    user: str | None = None


class CompletionChoice(Struct):
    text: str
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = None


class TextCompletion(Struct, omit_defaults=True, tag_field="object", tag="text_completion"):
    """The answer of `completions.create`, and (with partial text) each item of its stream."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
