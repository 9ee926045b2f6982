"""How many tokens a prompt takes at an endpoint: estimated, for none of them tells without being sent the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from jan_core.types import ChatMessage

from ..token_shapes import Counted
from .remote import Remote

__all__ = ["estimate"]


def estimate(messages: Sequence[ChatMessage], remote: Remote) -> Counted:
    """A count that errs high: a token for two bytes (English takes one for four), eight for each message's frame."""
    each = [len(message.text().encode()) // 2 + 8 for message in messages]
    return Counted(sum(each), each, remote.context, estimated=True)
