"""The errors of this extension: codes -32020 to -32023 (-32024 is kept for it)."""

from __future__ import annotations

from jan_core import JanError

__all__ = ["AssistantExists", "AssistantLimit", "AssistantNotFound", "AssistantProtected"]


class AssistantNotFound(JanError):
    """No assistant has this id."""

    code, type = -32020, "assistant_not_found"


class AssistantExists(JanError):
    """An assistant has this id already."""

    code, type = -32021, "assistant_exists"


class AssistantProtected(JanError):
    """The default assistant can be changed, but not deleted: there is always somebody to answer."""

    code, type = -32022, "assistant_protected"


class AssistantLimit(JanError):
    """There are as many assistants, or they are as large, as this store takes."""

    code, type = -32023, "assistant_limit"
