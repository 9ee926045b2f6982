"""The exact JSON of the OpenAI API reference, made from the method table's objects.

The table's Structs leave out members at their default; clients written against the reference expect some of them
(`object`, `usage: null`, `content: null`), so answers are re-wrapped here before they are encoded.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from jan_core.types import (
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChunkChoice,
    CompletionChoice,
    TextCompletion,
    ToolCall,
    Usage,
)

__all__ = ["chat", "chat_chunk", "model", "text", "text_chunk"]

encode = msgspec.json.Encoder().encode


class Message(Struct):
    role: str
    content: str | list[Any] | None
    refusal: str | None = None
    tool_calls: list[ToolCall] | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET


class Choice(Struct):
    index: int
    message: Message
    finish_reason: str | None
    logprobs: ChatLogprobs | None


class Completion(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[Choice] | list[ChunkChoice] | list[CompletionChoice]
    usage: Usage | UnsetType | None = UNSET


def chat(answer: ChatCompletion) -> bytes:
    """The body of a whole chat completion."""
    choices = [
        Choice(
            choice.index,
            Message(
                choice.message.role,
                choice.message.content,
                tool_calls=choice.message.tool_calls or UNSET,
                reasoning_content=choice.message.reasoning_content or UNSET,
            ),
            choice.finish_reason,
            choice.logprobs,
        )
        for choice in answer.choices
    ]
    return encode(Completion(answer.id, "chat.completion", answer.created, answer.model, choices, answer.usage))


def chat_chunk(chunk: ChatChunk, with_usage: bool) -> bytes:
    """One event of a streamed chat completion; `usage` is null until the last one, and only when it was asked for."""
    usage = chunk.usage if chunk.usage is not None or with_usage else UNSET
    return encode(Completion(chunk.id, "chat.completion.chunk", chunk.created, chunk.model, chunk.choices, usage))


def text(answer: TextCompletion) -> bytes:
    """The body of a whole text completion."""
    return encode(Completion(answer.id, "text_completion", answer.created, answer.model, answer.choices, answer.usage))


def text_chunk(chunk: TextCompletion, with_usage: bool) -> bytes:
    """One event of a streamed text completion."""
    usage = chunk.usage if chunk.usage is not None or with_usage else UNSET
    return encode(Completion(chunk.id, "text_completion", chunk.created, chunk.model, chunk.choices, usage))


def remote_model(engine: str, name: str) -> dict[str, Any]:
    """A model of a remote engine as an OpenAI model object, under the name that requests use."""
    return {"id": f"{engine}/{name}", "object": "model", "created": 0, "owned_by": engine, "state": "remote"}


def model(record: dict[str, Any]) -> dict[str, Any]:
    """A row of `models.list` as an OpenAI model object. Never its path: HTTP says nothing of the file system."""
    try:
        created = int(datetime.fromisoformat(record.get("imported_at", "")).timestamp())
    except ValueError:
        created = 0
    shown = (
        "name",
        "state",
        "size",
        "architecture",
        "parameters",
        "quantization",
        "context_length",
        "license",
    )
    return {
        "id": record["id"],
        "object": "model",
        "created": created,
        "owned_by": "jan",
        "state": record.get("state", "available"),
        **{key: record[key] for key in shown if record.get(key)},
    }
