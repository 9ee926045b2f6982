"""OpenAI's chat-completion objects: what `chat.complete` takes, streams and returns.

Field names and meanings are those of the OpenAI API reference (POST /v1/chat/completions), so that the HTTP
surface is a thin skin. Unknown fields of a request are ignored, as OpenAI-compatible servers do; the sampling
fields `top_k`, `min_p` and `repeat_penalty` are llama.cpp's and are accepted beside OpenAI's own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

__all__ = [
    "AudioPart",
    "ChatChoice",
    "ChatChunk",
    "ChatCompletion",
    "ChatDelta",
    "ChatLogprob",
    "ChatLogprobs",
    "ChatMessage",
    "ChatRequest",
    "ChunkChoice",
    "CompletionDetails",
    "ContentPart",
    "FinishReason",
    "FunctionCall",
    "FunctionDelta",
    "ImagePart",
    "ImageUrl",
    "JsonFormat",
    "JsonSchema",
    "JsonSchemaFormat",
    "NamedFunction",
    "NamedTool",
    "ResponseFormat",
    "Sampling",
    "StreamOptions",
    "TextFormat",
    "TextPart",
    "TokensDetails",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolChoice",
    "ToolFunction",
    "TopLogprob",
    "Usage",
]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Probability = Annotated[float, Meta(ge=0, le=1)]


class TextPart(Struct, tag_field="type", tag="text"):
    """A piece of text in a message of several parts."""

    text: str


class ImageUrl(Struct, omit_defaults=True):
    """Where an image is. An engine on this machine takes `data:` URLs only: it fetches nothing."""

    url: str
    detail: str | None = None


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """An image in a message."""

    image_url: ImageUrl


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """Sound in a message. Known so that it can be refused: no engine here listens."""

    input_audio: dict[str, Any]


ContentPart = TextPart | ImagePart | AudioPart


class FunctionCall(Struct):
    """A call the model asks for; `arguments` is a JSON text, as OpenAI has it."""

    name: str
    arguments: str = "{}"


class ToolCall(Struct):
    id: str
    function: FunctionCall
    type: str = "function"
    index: int = 0


class FunctionDelta(Struct, omit_defaults=True):
    """What a chunk adds to a call: its name, once, and the next part of its arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(Struct, omit_defaults=True):
    """What a chunk adds to call `index` of an answer. `id`, `type` and the name come with its first part only."""

    index: int
    function: FunctionDelta
    id: str | None = None
    type: str | None = None


class ToolFunction(Struct, omit_defaults=True):
    """A function the model may ask for. `parameters`: a JSON schema of its arguments (an object)."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str = ""
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    function: ToolFunction
    type: str = "function"


class NamedFunction(Struct):
    name: str


class NamedTool(Struct, tag_field="type", tag="function"):
    """The one function that must be called."""

    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool
"""`auto`: the model may call tools; `required`: it must call at least one."""


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


class ChatMessage(Struct, omit_defaults=True):
    """One message of a conversation. `role` is `system`, `developer`, `user`, `assistant` or `tool`.

    `reasoning_content` is what the model thought before it answered (DeepSeek's name for it, as other servers use).
    """

    role: str
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    def text(self) -> str:
        """The textual content: parts of other kinds are left out."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content if isinstance(part, TextPart))
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


class TokensDetails(Struct):
    cached_tokens: int = 0


class CompletionDetails(Struct):
    """Tokens that were guessed from the text before them: those that were right, and those that were not."""

    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Struct):
    """Token counts, of all answers of a request together. `prompt_tokens_details.cached_tokens` were already in the KV
    cache and cost nothing.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: TokensDetails = field(default_factory=TokensDetails)
    completion_tokens_details: CompletionDetails = field(default_factory=CompletionDetails)


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
