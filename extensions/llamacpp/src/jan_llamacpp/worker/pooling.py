"""From the rows of a text's tokens to its vector: llama.cpp's poolings, done here so that a text can be read in parts.

`rank` comes from llama.cpp itself, which has weights of its own for it. No batches (`embedder.py`), no C.
"""

from __future__ import annotations

import numpy as np

from .embedding_context import Rows
from .options import Pooling
from .refusal import Refusal

__all__ = ["gather", "pooled"]


def gather(parts: list[Rows], rows: Rows, pooling: Pooling) -> None:
    """Add to `parts` what a pooling other than `rank` needs of the next `rows` of a text. They are copied."""
    match pooling:
        case "mean":
            parts.append(rows.sum(axis=0, dtype=np.float64))
        case "cls":
            if not parts:
                parts.append(rows[0].copy())
        case "last":
            parts[:] = [rows[-1].copy()]
        case _:
            parts.append(rows.copy())


def pooled(parts: list[Rows], pooling: Pooling, *, n_tokens: int, normalise: bool, index: int) -> bytes:
    """The vector of a text (with pooling `none` those of its tokens) as float32; `normalise`: to length 1.

    `index` is the text's, for the refusal. Raises Refusal("embedding_failed").
    """
    vectors = np.vstack(parts)
    if pooling == "mean":
        vectors = vectors.sum(axis=0, keepdims=True) / n_tokens
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise Refusal("embedding_failed", f"the model makes no finite vector of text {index}", index=index)
    if pooling != "rank":
        if not lengths.all():
            raise Refusal("embedding_failed", f"the model makes a vector of zeros of text {index}", index=index)
        if normalise:
            vectors = vectors / lengths
    return vectors.astype(np.float32).tobytes()
