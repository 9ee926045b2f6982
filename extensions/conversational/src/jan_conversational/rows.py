"""Rows of the tables, as the Structs that leave this extension.

A stored field that does not decode costs itself and not its message: the text is what a person wants back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from jan_core import InvalidParams
from jan_core.types import Message, Thread, ToolCall, Usage

from .clock import rfc3339
from .ids import INCOGNITO
from .shapes import LARGEST_METADATA

__all__ = [
    "MESSAGE_COLUMNS",
    "THREAD_COLUMNS",
    "encode_extra",
    "encode_metadata",
    "message_of",
    "thread_of",
]

THREAD_COLUMNS = "id, title, assistant_id, model, metadata, created_at, updated_at, sensitivity"
MESSAGE_COLUMNS = "id, sequence, role, content, created_at, status, model, pinned, error, extra"


class Extra(msgspec.Struct, omit_defaults=True):
    """The column `extra`: what is only ever read with the whole message."""

    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


_extra = msgspec.json.Decoder(Extra)
_metadata = msgspec.json.Decoder(dict[str, Any])


def thread_of(row: Sequence[Any]) -> Thread:
    """A row of THREAD_COLUMNS."""
    id, title, assistant_id, model, metadata, created_at, updated_at, sensitivity = row
    try:
        decoded = _metadata.decode(metadata)
    except msgspec.DecodeError as error:
        decoded = {"damaged": str(error)}
    return Thread(
        id=id,
        title=title,
        created_at=rfc3339(created_at),
        updated_at=rfc3339(updated_at),
        assistant_id=assistant_id,
        model=model,
        incognito=id.startswith(INCOGNITO),
        metadata=decoded,
        # What a newer version wrote, or damage: the stricter reading cannot hurt.
        sensitivity="normal" if sensitivity == "normal" else "sensitive",
    )


def message_of(row: Sequence[Any], thread_id: str) -> Message:
    """A row of MESSAGE_COLUMNS."""
    id, sequence, role, content, created_at, status, model, pinned, error, encoded = row
    try:
        extra = _extra.decode(encoded)
    except msgspec.DecodeError as reason:
        extra = Extra(metadata={"damaged": str(reason)})
    return Message(
        id=id,
        thread_id=thread_id,
        sequence=sequence,
        role=role,
        content=content,
        created_at=rfc3339(created_at),
        status=status,
        model=model,
        finish_reason=extra.finish_reason,
        usage=extra.usage,
        tool_calls=extra.tool_calls,
        tool_call_id=extra.tool_call_id,
        pinned=bool(pinned),
        error=error,
        metadata=extra.metadata,
    )


def encode_metadata(metadata: dict[str, Any]) -> str:
    """Metadata as a column. Raises InvalidParams when it is too large or not JSON."""
    try:
        encoded = msgspec.json.encode(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidParams(f"metadata cannot be kept as JSON: {error}", path="$.metadata") from None
    if len(encoded) > LARGEST_METADATA:
        raise InvalidParams(f"metadata takes {len(encoded):,} bytes; {LARGEST_METADATA:,} are kept", path="$.metadata")
    return encoded.decode()


def encode_extra(message: Message) -> str:
    """The column `extra` of a message."""
    extra = Extra(message.finish_reason, message.usage, message.tool_calls, message.tool_call_id, message.metadata)
    return msgspec.json.encode(extra).decode()
