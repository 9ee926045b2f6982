"""What the counting of a prompt's tokens takes and returns. On this machine it is exact, elsewhere a guess."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from jan_core.types import ChatMessage, Tool

__all__ = ["CountTokens", "Counted"]


class CountTokens(Struct):
    """How many tokens a chat prompt takes in a model (empty: the default one), its template included."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str = ""
    tools: list[Tool] | None = None


class Counted(Struct):
    """`tokens` is exact for the whole prompt, unless it is `estimated`: errs high, for a remote engine's model.

    `per_message`: each message's own tokens and an even share of what the template adds, rounded up, so that
    their sum is never below `tokens`. `context`: the tokens one request may take, prompt and answer together;
    0: not known.
    """

    tokens: int
    per_message: list[int]
    context: int
    estimated: bool = False
