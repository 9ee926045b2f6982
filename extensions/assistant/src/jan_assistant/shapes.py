"""What the methods take and return, with their limits. The Assistant itself is `jan_core.types.Assistant`."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType, field

from jan_core.types import Assistant, Sampling

__all__ = ["AssistantChanged", "AssistantList", "CreateAssistant", "Identified", "Parameters", "UpdateAssistant"]

Id = Annotated[str, Meta(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="letters, digits, . _ -")]
Name = Annotated[str, Meta(max_length=200, pattern=r"^(?![\s\S]*[\x00-\x1f\x7f])[\s\S]*\S", description="one line")]
Instructions = Annotated[str, Meta(max_length=256 * 1024)]
Description = Annotated[str, Meta(max_length=4096)]
ModelId = Annotated[str, Meta(max_length=512, description="empty: the default model")]
Avatar = Annotated[str, Meta(max_length=64 * 1024, description="an emoji, or a data: URL of a small picture")]


class Parameters(Sampling, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """What decides the next token. A field left out is the model's own default; an unknown one is refused."""


class Identified(Struct, forbid_unknown_fields=True):
    """Names one assistant."""

    assistant_id: Id


class CreateAssistant(Struct, forbid_unknown_fields=True, kw_only=True):
    """A new assistant. Without an `id` it gets one."""

    name: Name
    id: Id | None = None
    instructions: Instructions = ""
    description: Description = ""
    model: ModelId = ""
    parameters: Parameters = field(default_factory=Parameters)
    avatar: Avatar = ""


class UpdateAssistant(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of one assistant. A member left out stays; `parameters` are replaced as a whole."""

    assistant_id: Id
    name: Name | UnsetType = UNSET
    instructions: Instructions | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    model: ModelId | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET
    avatar: Avatar | UnsetType = UNSET


class AssistantChanged(Struct):
    """Data of the event `assistants.changed`: the assistant that was made, changed or deleted."""

    assistant_id: str


class AssistantList(Struct):
    """All assistants, the default one first, then in the order they were made."""

    assistants: list[Assistant]
