"""What a worker tells: of the model it loaded, of each step of an answer, of itself. Shapes only.

`protocol.py` has the messages that carry them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

__all__ = ["Finish", "ModelInfo", "Stats", "StepPiece", "TokenLogprob", "Usage"]

Finish = Literal["stop", "length", "cancelled"]


class ModelInfo(Struct, frozen=True):
    """A loaded model. `size`: bytes of the weights. `n_ctx`: the limit of one request; `n_cells`: of all
    together. `tools`: how it writes tool calls (a key of `toolcalls.FORMS`). `reasons`: its chat template speaks of
    thoughts.
    """

    n_ctx: int
    n_ctx_train: int
    n_cells: int
    n_seq: int
    n_vocab: int
    n_params: int
    size: int
    description: str
    eos: str
    has_template: bool
    threads: int
    load_seconds: float
    engine: str
    pid: int
    tools: str = "hermes"
    reasons: bool = False


class Usage(Struct, frozen=True, array_like=True):
    """Tokens of one generation. `cached`: prompt tokens that were in the KV cache already, or on disk.

    `drafted`: tokens that were guessed; `accepted`: those of them that were right.
    """

    prompt: int
    completion: int
    cached: int
    drafted: int = 0
    accepted: int = 0


class TokenLogprob(Struct, frozen=True, array_like=True):
    """A token that was drawn, and how likely the model found it before any sampling option. `top`: the likeliest
    tokens of that place with their log-probabilities, likeliest first. Tokens as bytes: one may be part of a character.
    """

    token: bytes
    logprob: float
    top: list[tuple[bytes, float]] = []


class StepPiece(Struct, array_like=True):
    """What scheduler step `step` added to answer `index` of generation `id`: some text, `tokens` tokens, perhaps the
    end. `logprobs` are those of its tokens, where they were asked for.
    """

    id: int
    text: str
    tokens: int
    step: int
    finish: Finish | None = None
    usage: Usage | None = None
    index: int = 0
    logprobs: list[TokenLogprob] | None = None


class Stats(Struct):
    """Counters since the load, and the state of this moment. Seconds are wall clock."""

    steps: int = 0
    generated: int = 0
    prefilled: int = 0
    reused: int = 0
    preempted: int = 0
    decode_seconds: float = 0.0
    active: int = 0
    queued: int = 0
    free_slots: int = 0
    cells_used: int = 0
    threads: int = 0
    drafted: int = 0
    accepted: int = 0
    step_age: float = 0.0
    """Seconds since the step that runs now began; 0 when none runs."""
