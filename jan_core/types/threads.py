"""Conversations: threads, messages, assistants, and what fits into a context window."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct, field

from .generation import Usage
from .messages import ChatMessage
from .tools import ToolCall

__all__ = ["Assembly", "Assistant", "Budget", "Message", "MessageStatus", "Sensitivity", "Thread"]

MessageStatus = Literal["complete", "streaming", "cancelled", "failed"]
Sensitivity = Literal["normal", "sensitive"]


class Thread(Struct, omit_defaults=True):
    """A conversation. Times are RFC 3339 in UTC."""

    id: str
    title: str
    created_at: str
    updated_at: str
    assistant_id: str = ""
    model: str = ""
    incognito: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)
    sensitivity: Sensitivity = "normal"
    """`sensitive`: nothing of it is ever answered on another machine, whatever the policy."""


class Message(Struct, omit_defaults=True):
    """One message of a thread. `sequence` orders messages within their thread, from 1.

    `status` tells how it came to be: `cancelled` and `failed` keep the part that had arrived.
    """

    id: str
    thread_id: str
    sequence: int
    role: Literal["system", "user", "assistant", "tool"]
    content: str
    created_at: str
    status: MessageStatus = "complete"
    model: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    pinned: bool = False
    error: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


class Assistant(Struct, omit_defaults=True):
    """Who answers: instructions, a model, and parameters (the fields of `chat.Sampling`)."""

    id: str
    name: str
    instructions: str = ""
    description: str = ""
    model: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    avatar: str = ""
    created_at: str = ""
    updated_at: str = ""


class Budget(Struct):
    """How much fits: tokens for the prompt (`context` minus `reserved` for the answer), and for which model."""

    model: str
    context: int
    reserved: int

    @property
    def prompt(self) -> int:
        """Tokens the prompt may take."""
        return max(0, self.context - self.reserved)


class Assembly(Struct):
    """A prompt in the making: the value that `jan_assemble_context` threads through its implementations.

    `messages` go to the model in this order; `omitted` are the ids of those left out, with the reason in `notes`.
    `pinned` are the indices into `messages` that must stay.
    """

    thread: Thread
    messages: list[ChatMessage]
    tokens: list[int]
    """Token count of each message, in the same order."""
    ids: list[str]
    """Id of the stored message behind each, empty for those made up (the system prompt)."""
    pinned: list[int] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
