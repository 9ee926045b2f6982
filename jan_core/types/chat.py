"""OpenAI's chat completions: what `chat.complete` takes, streams and returns.

Field names and meanings are those of the OpenAI API reference (POST /v1/chat/completions), so that the HTTP
surface is a thin skin. Unknown fields of a request are ignored, as OpenAI-compatible servers do. What a request is made
of is in `messages`, `tools` and `generation`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from .generation import FinishReason, Sampling, StreamOptions, Usage
from .messages import ChatMessage
from .tools import Tool, ToolCallDelta, ToolChoice

__all__ = [
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatDelta",
    "ChatLogprob",
    "ChatLogprobs",
    "ChatRequest",
    "ChunkChoice",
    "JsonFormat",
    "JsonSchema",
    "JsonSchemaFormat",
    "ResponseFormat",
    "TextFormat",
    "TopLogprob",
]


class TextFormat(Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchema(Struct, omit_defaults=True):
    """A JSON schema the answer must follow. It is always followed to the letter, whatever `strict` says."""

    name: str = ""
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """JSON that follows a schema."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonFormat | JsonSchemaFormat


class ChatRequest(Sampling, omit_defaults=True, kw_only=True):
    """A chat-completion request. `model` empty: the default model. `stream`: send chunks as they come."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """Whether an answer may hold several calls; it may unless this is false."""
    response_format: ResponseFormat | None = None
    n: Annotated[int, Meta(ge=1, le=16)] = 1
    """How many answers to make."""
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    reasoning_format: Literal["auto", "deepseek", "none"] | None = None
    """What the model thinks comes apart from its answer, as `reasoning_content`, unless this is `none`. llama.cpp's."""
    chat_template_kwargs: dict[str, Any] | None = None
    """More variables for the chat template, such as `enable_thinking`. llama.cpp's."""
    grammar: str | None = None
    """A grammar in llama.cpp's GBNF that the answer must follow. llama.cpp's."""
    priority: Literal["interactive", "batch"] = "interactive"
    """`batch` waits while anything interactive does. Not OpenAI's."""
    overflow: Literal["refuse", "shift"] = "refuse"
    """Where prompt and answer do not fit the context: refuse, or forget the oldest of it. Not OpenAI's."""
    user: str | None = None
    thread_id: str | None = None
    """The conversation this belongs to, when there is one: routing and caches may use it. Not OpenAI's."""
    sensitivity: Literal["normal", "sensitive"] = "normal"
    """`sensitive` never leaves this machine, whatever the policy. Not OpenAI's."""

    def limit(self) -> int | None:
        """How many tokens may be generated: OpenAI's newer name wins over the older; None: what the window holds."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens


class TopLogprob(Struct):
    """A token and how likely the model found it. `token` is its text, with U+FFFD for parts of a character; `bytes`
    are what it really stands for.
    """

    token: str
    logprob: float
    bytes: list[int] | None = None


class ChatLogprob(Struct):
    """A token of the answer, and the likeliest tokens of its place."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class ChatLogprobs(Struct):
    """The tokens an answer (or a chunk of it) is made of: all that were generated, thoughts and calls included."""

    content: list[ChatLogprob] | None = None


class ChatChoice(Struct):
    message: ChatMessage
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


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
    tool_calls: list[ToolCallDelta] | None = None
    reasoning_content: str | None = None


class ChunkChoice(Struct):
    delta: ChatDelta
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: ChatLogprobs | None = None


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
