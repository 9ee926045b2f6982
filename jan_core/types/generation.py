"""What chat completions and text completions share: how tokens are drawn, why an answer ended, what it took.

The names are OpenAI's; `top_k`, `min_p` and `repeat_penalty` are llama.cpp's and are accepted beside them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

__all__ = ["CompletionDetails", "FinishReason", "Sampling", "StreamOptions", "TokensDetails", "Usage"]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Probability = Annotated[float, Meta(ge=0, le=1)]


class StreamOptions(Struct, omit_defaults=True):
    include_usage: bool | None = False


class Sampling(Struct, omit_defaults=True, kw_only=True):
    """What decides the next token. None: the model's or the engine's own default."""

    temperature: Annotated[float, Meta(ge=0, le=5)] | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    min_p: Probability | None = None
    seed: Annotated[int, Meta(ge=-(2**53), le=2**53)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    max_tokens: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: dict[str, float] | None = None

    def stops(self) -> list[str]:
        """The stop strings as a list; empty strings are left out (they would stop everything)."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [text for text in stop if text]


class TokensDetails(Struct):
    cached_tokens: int = 0


class CompletionDetails(Struct):
    """Tokens that were guessed from the text before them: those that were right, and those that were not."""

    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class Usage(Struct):
    """Token counts, of all answers of a request together. `prompt_tokens_details.cached_tokens` were already in the KV
    cache and cost nothing.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: TokensDetails = field(default_factory=TokensDetails)
    completion_tokens_details: CompletionDetails = field(default_factory=CompletionDetails)
