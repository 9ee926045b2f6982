"""OpenAI's older text completions (POST /v1/completions): what `completions.create` takes, streams and returns."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from .generation import FinishReason, Sampling, StreamOptions, Usage

__all__ = ["CompletionChoice", "CompletionRequest", "TextCompletion", "TextLogprobs"]


class CompletionRequest(Sampling, omit_defaults=True, kw_only=True):
    """A plain text completion: the prompt is continued as it stands, without a chat template."""

    prompt: str
    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    echo: bool = False
    n: Annotated[int, Meta(ge=1, le=16)] = 1
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    """Log-probabilities of each token and of so many alternatives."""
    grammar: str | None = None
    """A grammar in llama.cpp's GBNF that the text must follow. llama.cpp's."""
    priority: Literal["interactive", "batch"] = "interactive"
    """`batch` waits while anything interactive does. Not OpenAI's."""
    overflow: Literal["refuse", "shift"] = "refuse"
    """Where prompt and answer do not fit the context: refuse, or forget the oldest of it. Not OpenAI's."""
    user: str | None = None


class TextLogprobs(Struct):
    """The tokens of a text, in columns. `text_offset`: where each begins, in characters of the text (with `echo` the
    prompt is part of it).
    """

    tokens: list[str] = []
    token_logprobs: list[float] = []
    top_logprobs: list[dict[str, float]] = []
    text_offset: list[int] = []


class CompletionChoice(Struct):
    text: str
    index: int = 0
    finish_reason: FinishReason | None = None
    logprobs: TextLogprobs | None = None


class TextCompletion(Struct, omit_defaults=True, tag_field="object", tag="text_completion"):
    """The answer of `completions.create`, and (with partial text) each item of its stream."""

    id: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage | None = None
