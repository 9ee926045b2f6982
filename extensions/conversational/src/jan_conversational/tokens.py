"""How many tokens messages take: asked of the engine, or estimated where no engine tells."""

from __future__ import annotations

from msgspec import Struct

from jan_core import Context, Progress, RpcError
from jan_core.types import ChatMessage

__all__ = ["TokenCount", "count_tokens", "estimate"]

_ABSENT = ("method_not_found", "extension_unavailable")


class TokenCount(Struct):
    """The answer of `tokens.count`: of the whole prompt, of each message, and the model's context window.

    `context` is 0 where it is not known.
    """

    tokens: int
    per_message: list[int]
    context: int = 0
    estimated: bool = False


async def count_tokens(ctx: Context, model: str, messages: list[ChatMessage], progress: Progress) -> TokenCount | None:
    """Count with `tokens.count`; None when nobody serves it. Raises RpcError for what the engine refuses.

    `progress` is called while the model is loaded for it.
    """
    params = {"model": model, "messages": messages}
    try:
        return await ctx.call("tokens.count", params, result=TokenCount, progress=progress)
    except RpcError as error:
        if error.type in _ABSENT:
            return None
        raise


def estimate(messages: list[ChatMessage], context: int) -> TokenCount:
    """A count that errs high: a token for two bytes (English takes one for four), eight for each frame."""
    per_message = [len(m.text().encode()) // 2 + 8 for m in messages]
    return TokenCount(sum(per_message) + 8, per_message, context, estimated=True)
