"""What the methods take, return and stream, with their limits.

Threads and messages themselves are `jan_core.types.Thread` and `Message`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from jan_core.types import Message, Sampling, Sensitivity, Thread, ToolCall, Usage

__all__ = [
    "LARGEST_METADATA",
    "LARGEST_TEXT",
    "CreateMessage",
    "CreateThread",
    "ListMessages",
    "ListThreads",
    "MessagePage",
    "MessageRef",
    "Order",
    "Parameters",
    "RunDelta",
    "RunItem",
    "RunReasoning",
    "RunResult",
    "RunStarted",
    "RunThread",
    "ThreadChanged",
    "ThreadErased",
    "ThreadPage",
    "ThreadRef",
    "UpdateMessage",
    "UpdateThread",
]

LARGEST_TEXT = 4 * 1024 * 1024
"""Characters of one message: at JSON's worst (six bytes for a control character) it fits one line of the
channel.
"""
LARGEST_METADATA = 64 * 1024
"""Bytes of one object's metadata as JSON."""

Id = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
OptionalId = Annotated[str, Meta(pattern="^([A-Za-z0-9][A-Za-z0-9._-]{0,127})?$")]
Text = Annotated[str, Meta(max_length=LARGEST_TEXT)]
Title = Annotated[str, Meta(max_length=500)]
ModelId = Annotated[str, Meta(max_length=512)]
Cursor = Annotated[str, Meta(max_length=512, description="from the page before; empty: the first page")]
Metadata = Annotated[dict[str, Any], Meta(description="up to 64 KiB of JSON, kept as it is")]
Order = Literal["asc", "desc"]


class Parameters(Sampling, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """What decides the next token. What is given wins over the assistant's."""


class CreateThread(Struct, forbid_unknown_fields=True, kw_only=True):
    """A new thread.

    An empty title is taken from the first user message; `incognito` keeps it in memory only. `sensitivity` null:
    `sensitive` for an incognito one, else `normal`.
    """

    title: Title = ""
    assistant_id: OptionalId = ""
    model: ModelId = ""
    incognito: bool = False
    metadata: Metadata = field(default_factory=dict)
    sensitivity: Sensitivity | None = None


class ListThreads(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which threads: those on disk, or the incognito ones."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    cursor: Cursor = ""
    incognito: bool = False


class ThreadPage(Struct, omit_defaults=True):
    """Threads, the last used first. `cursor` continues; it is empty at the end.

    A thread that is used while one pages moves to the front, where the next listing has it.
    """

    threads: list[Thread]
    cursor: str = ""


class ThreadChanged(Struct):
    """Data of the event `threads.changed`: the thread, or one of its messages, was made, changed or deleted."""

    thread_id: str


class ThreadErased(Struct):
    """Data of the event `threads.erased`: the thread, or a text in it, was deleted or replaced.

    Whoever keeps something that was made of it deletes that.
    """

    thread_id: str


class ThreadRef(Struct, forbid_unknown_fields=True):
    """Names one thread."""

    thread_id: Id


class UpdateThread(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a thread. A member left out stays; `metadata` is replaced as a whole."""

    thread_id: Id
    title: Title | UnsetType = UNSET
    assistant_id: OptionalId | UnsetType = UNSET
    model: ModelId | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    sensitivity: Sensitivity | UnsetType = UNSET


class CreateMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """A message to put at the end of a thread. `pinned` ones always go to the model."""

    thread_id: Id
    content: Text
    role: Literal["system", "user", "assistant", "tool"] = "user"
    pinned: bool = False
    tool_calls: Annotated[list[ToolCall], Meta(max_length=128)] | None = None
    tool_call_id: Annotated[str, Meta(max_length=256)] | None = None
    metadata: Metadata = field(default_factory=dict)


class ListMessages(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which messages: `asc` begins with the oldest, `desc` with the newest."""

    thread_id: Id
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Cursor = ""
    order: Order = "asc"


class MessagePage(Struct, omit_defaults=True):
    """Messages in the order asked for. `cursor` continues; it is empty at the end.

    A page may hold fewer than `limit`: it ends where its text grows large.
    """

    messages: list[Message]
    cursor: str = ""


class MessageRef(Struct, forbid_unknown_fields=True):
    """Names one message of a thread."""

    thread_id: Id
    message_id: Id


class UpdateMessage(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a message. A member left out stays; `metadata` is replaced as a whole."""

    thread_id: Id
    message_id: Id
    content: Text | UnsetType = UNSET
    pinned: bool | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class RunThread(Struct, forbid_unknown_fields=True, kw_only=True):
    """One assistant turn. Without `content` the newest user or tool message is answered (again).

    `model` and `parameters` win over the thread's and the assistant's. `stream`: send items as the answer
    comes.
    """

    thread_id: Id
    content: Text | None = None
    model: ModelId = ""
    parameters: Parameters = field(default_factory=Parameters)
    stream: bool = True


class RunStarted(Struct, tag_field="type", tag="started"):
    """The question is stored and the prompt is put together; the answer will be `assistant_message_id`.

    `omitted` are the ids of messages that did not fit the context window; `notes` say what was done to make
    it fit.
    """

    user_message_id: str
    """Empty when the run was asked for without content."""
    assistant_message_id: str
    omitted: list[str]
    notes: list[str]


class RunDelta(Struct, tag_field="type", tag="delta"):
    """Text to put at the end of the answer."""

    text: str


class RunReasoning(Struct, tag_field="type", tag="reasoning"):
    """Text to put at the end of the model's reasoning, which the answer's metadata keep as `reasoning`."""

    text: str


RunItem = RunStarted | RunDelta | RunReasoning


class RunResult(Struct):
    """The stored answer, what it cost, and what the model was not shown."""

    message: Message
    usage: Usage | None
    omitted: list[str]
    notes: list[str]
