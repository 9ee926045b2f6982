"""The settings of this extension."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["ConversationalSettings"]


class ConversationalSettings(Struct):
    """How conversations are kept and fitted into context windows."""

    flush_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 0.5
    """How much of an answer under way a crash may cost: it is stored at least this often while text comes."""
    reserved_for_answer: Annotated[int, Meta(ge=1, le=1_000_000)] = 1024
    """Tokens kept free for the answer where `max_tokens` is not given; at most a quarter of the window."""
    unknown_context: Annotated[int, Meta(ge=128, le=100_000_000)] = 4096
    """Tokens assumed for the context window where no engine tells it."""
