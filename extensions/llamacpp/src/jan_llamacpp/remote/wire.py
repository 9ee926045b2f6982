"""What endpoints send, read leniently: members that OpenAI's reference requires are missing here and null there.

Only what the house passes on is read. What cannot be understood at all ends the answer (see `answer.py`).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct, field

from jan_core.types import ChatLogprobs, FinishReason, TokensDetails, Usage

__all__ = [
    "WireCall",
    "WireChoice",
    "WireChunk",
    "WireModels",
    "WirePart",
    "error_text",
    "finish_reason",
    "logprobs_of",
    "text_of",
    "usage_of",
]

Index = Annotated[int, Meta(ge=0, lt=128)]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class WireFunction(Struct):
    name: str | None = None
    arguments: str | None = None


class WireCall(Struct):
    """A tool call, or in a stream the next part of one."""

    index: Index | None = None
    id: str | None = None
    function: WireFunction | None = None


class WirePart(Struct):
    """A delta of a stream, or a whole message."""

    role: str | None = None
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """What some endpoints call `reasoning_content`."""
    tool_calls: list[WireCall] | None = None


class WireChoice(Struct):
    index: Index = 0
    delta: WirePart | None = None
    message: WirePart | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class WireDetails(Struct):
    cached_tokens: Count | None = None


class WireUsage(Struct):
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    prompt_tokens_details: WireDetails | None = None


class WireChunk(Struct):
    """One event of a stream, or a whole completion; with `error` neither."""

    choices: list[WireChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None


class WireModel(Struct):
    id: str


class WireModels(Struct):
    """The answer of GET /models."""

    data: list[WireModel] = field(default_factory=list)


def logprobs_of(choice: WireChoice) -> ChatLogprobs | None:
    """The log-probabilities of a choice, if they came in the form of the API reference."""
    try:
        return msgspec.convert(choice.logprobs, ChatLogprobs | None)
    except msgspec.ValidationError:
        return None


def text_of(part: WirePart) -> str:
    """The text of a part; of a list of content parts those that are text."""
    if isinstance(part.content, list):
        return "".join(str(p.get("text", "")) for p in part.content if p.get("type") == "text")
    return part.content or ""


def usage_of(usage: WireUsage) -> Usage:
    """An endpoint's token counts; what it leaves out is 0, the total the sum."""
    prompt, completion = usage.prompt_tokens or 0, usage.completion_tokens or 0
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None
    return Usage(prompt, completion, usage.total_tokens or prompt + completion, TokensDetails(cached or 0))


def finish_reason(reason: str) -> FinishReason:
    """One of OpenAI's reasons; other words than those mean that the model stopped by itself."""
    known: dict[str, FinishReason] = {
        "length": "length",
        "max_tokens": "length",
        "model_length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
    }
    return known.get(reason, "stop")


def error_text(body: bytes | Any, key: str | None = None) -> str:
    """What an endpoint says went wrong, in one line of at most 300 characters; empty when it is no such object.

    `body`: JSON, or the value of its member `error`. `key`: what endpoints quote back at us, and nobody shall read.
    """
    if isinstance(body, bytes):
        try:
            body = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return ""
        if isinstance(body, list) and body:  # Gemini's
            body = body[0]
        if isinstance(body, dict):
            body = body.get("error", body)
    if isinstance(body, dict):
        body = next((body[name] for name in ("message", "detail", "error") if isinstance(body.get(name), str)), "")
    if not isinstance(body, str):
        return ""
    if key:
        body = body.replace(key, "(the key)")
    line = " ".join("".join(c if c.isprintable() else " " for c in body[:3000]).split())
    return line if len(line) <= 300 else line[:299] + "…"
