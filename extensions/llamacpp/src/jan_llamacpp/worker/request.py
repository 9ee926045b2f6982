"""What a worker is asked for: a prompt, how tokens are drawn, what the answer must look like. Shapes only.

`protocol.py` has the messages that carry them.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = ["IMAGE_MARK", "GenerateParams", "Grammar", "Overflow", "Priority", "Prompt", "Sampling"]

IMAGE_MARK = "<__media__>"
"""Where an image stands in a text (mtmd's default marker)."""

Overflow = Literal["refuse", "shift"]
Priority = Literal["interactive", "batch"]


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. Temperature 0 takes the likeliest.

    `top_k` 0: no limit. `repeat_penalty` divides or multiplies the logits of tokens among the last
    `penalty_last_n` of prompt and answer (-1: all of them); `frequency_penalty` and `presence_penalty` are
    OpenAI's, over the same window of the answer alone. `logit_bias` is added to the logits, by token id.
    `seed` None: a random one.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    logit_bias: dict[int, float] = {}
    seed: int | None = None


class Prompt(Struct, frozen=True, omit_defaults=True):
    """A prompt in one of three forms: `messages` (rendered by the model's chat template), `text` or `tokens`.

    `messages` and `tools` are plain OpenAI objects; `extra` are further variables for the template. `images`: the
    bytes of the pictures that stand at the `IMAGE_MARK`s in the messages or the text, in their order.
    """

    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    tokens: list[int] | None = None
    tools: list[dict[str, Any]] | None = None
    extra: dict[str, Any] = {}
    images: list[bytes] = []


class Grammar(Struct, frozen=True, omit_defaults=True):
    """What an answer must look like: a grammar in llama.cpp's GBNF, whose rule `root` an answer follows.

    `schemas`: further rules, `root` perhaps among them, as JSON schemas; `fallback`: others to take for them where
    these make no grammar. `triggers`: the grammar holds only from the first of these texts on, which is part of it;
    before it, anything goes. `reasoning`: the answer may think first, between `<think>` and `</think>`; `opened`: it
    does, because the prompt ends within it (set by the worker).
    """

    gbnf: str = ""
    schemas: dict[str, Any] = {}
    fallback: dict[str, Any] = {}
    triggers: list[str] = []
    reasoning: bool = False
    opened: bool = False


class GenerateParams(Struct, frozen=True, omit_defaults=True):
    """One generation. `max_tokens` None: until the model ends or the context is full.

    `queue_seconds`: give up with `overloaded` when it has not started by then. `ignore_eos` is for
    measurements. `n`: answers to make; each is drawn with a seed of its own (`seed` + its index), and its pieces carry
    its index. `priority`: `batch` waits while anything interactive does. `overflow`: what happens where prompt and
    answer do not fit the context: refuse, or forget the oldest half after the first `keep` tokens, as often as needed.
    `logprobs`: log-probabilities of each token and of so many alternatives. `thread`: the conversation, whose KV state
    is kept across restarts (`LoadOptions.state_dir`). `speculate` None: as the model was loaded.
    """

    prompt: Prompt
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    stop: list[str] = []
    queue_seconds: float | None = None
    ignore_eos: bool = False
    n: int = 1
    priority: Priority = "interactive"
    overflow: Overflow = "refuse"
    keep: int = 0
    logprobs: int | None = None
    grammar: Grammar | None = None
    thread: str | None = None
    speculate: bool | None = None
