"""OpenAI's chat messages: who says what, in words, pictures and calls of tools."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from .tools import ToolCall

__all__ = ["AudioPart", "ChatMessage", "ContentPart", "ImagePart", "ImageUrl", "TextPart"]


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
