"""What a request asks for, as this context can take it: what is refused, and what is cut off a prompt that is too long.

Whose turn it is, and whether there is room now, is `admission.py`'s and `cache.py`'s business.
"""

from __future__ import annotations

from .images import Picture
from .refusal import Refusal
from .request import GenerateParams

__all__ = ["fitted", "more_cells"]

MAX_STOP = 4096
"""Characters of all stop strings of a request: every piece of text is compared with all of them."""
MAX_ANSWERS = 64


def fitted(
    tokens: list[int],
    params: GenerateParams,
    pictures: dict[int, Picture],
    *,
    n_ctx: int,
    n_vocab: int,
    shiftable: bool,
) -> list[int]:
    """The prompt as it can be evaluated: where the context may be shifted (`shiftable`: the model can do that), one
    that is too long loses its oldest part, as if it had been shifted while it was read.

    Raises Refusal: `invalid_generation`, `context_overflow`.
    """
    n_prompt = len(tokens) + more_cells(pictures)
    if not tokens:
        raise Refusal("invalid_generation", "the prompt is empty")
    if pictures and tokens[-1] < 0:
        raise Refusal("invalid_generation", "a prompt cannot end with a picture")
    if (min(tokens) < 0 and not pictures) or max(tokens) >= n_vocab:
        raise Refusal("invalid_generation", f"the prompt has a token outside 0..{n_vocab - 1}")
    if not 1 <= params.n <= MAX_ANSWERS:
        raise Refusal("invalid_generation", f"n is {params.n}; it must be between 1 and {MAX_ANSWERS}")
    wanted = 1 if params.max_tokens is None else params.max_tokens
    if wanted < 0:
        raise Refusal("invalid_generation", "max_tokens is negative")
    if sum(map(len, params.stop)) > MAX_STOP:
        raise Refusal("invalid_generation", f"the stop strings have more than {MAX_STOP} characters")
    if n_prompt + wanted <= n_ctx:
        return list(tokens)
    if params.overflow != "shift" or not shiftable or pictures:
        raise Refusal(
            "context_overflow",
            f"{n_prompt} tokens of prompt and {wanted} of answer do not fit the context of {n_ctx}",
            n_prompt=n_prompt,
            n_ctx=n_ctx,
            max_tokens=params.max_tokens,
            max_allowed=max(0, n_ctx - n_prompt),
        )
    if n_prompt < n_ctx:
        return list(tokens)
    keep = max(0, min(params.keep, n_ctx // 2))
    return (tokens[:keep] + tokens[n_prompt - (n_ctx - keep) // 2 :])[:n_ctx] or tokens[-1:]


def more_cells(pictures: dict[int, Picture]) -> int:
    """Cells that these take beyond one for each of their tokens."""
    return sum(picture.more_cells for picture in pictures.values())
