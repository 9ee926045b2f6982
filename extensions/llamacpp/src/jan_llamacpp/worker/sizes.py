"""How large contexts are, as far as that follows from options and a model's header alone.

The worker makes its contexts by these rules, and the host estimates by them what a worker will take. No engine, no
arrays: it must stay light to import.
"""

from __future__ import annotations

from msgspec import Struct

from .options import LoadOptions

__all__ = ["CELL_STEP", "DEFAULT_CTX", "PLAIN_ATTENTION_BYTES", "EmbeddingSizes", "embedding_sizes"]

CELL_STEP = 256
"""llama.cpp rounds a cache up to this many cells."""
PLAIN_ATTENTION_BYTES = 160 * 1024 * 1024
"""On a CPU flash attention is a tenth faster over some hundred cells, and for small models a quarter slower over some
thousand. So plain attention is used where all sequences look over one cache, if the scores of all heads over all cells
are no larger than this (and flash attention where it is needed: a quantised cache)."""
DEFAULT_CTX = 8192
SEQUENCES = 64
"""Texts in one decode, at most."""
LOGITS_OF_STEP = 256 << 20
LOGITS_OF_TEXT = 2 << 30
"""Bytes. llama.cpp keeps room for the logits of every output, also where nobody wants any and where the model has none:
a vocabulary of 250,000 costs a megabyte a token. So many bytes for a batch of texts, so many for a single long one."""


class EmbeddingSizes(Struct, frozen=True):
    """Of a context that makes embeddings. `n_ctx`: tokens one text may have; `n_batch`: in one decode; `n_cells`: of
    all texts under way together; `n_seq`: texts in one decode. `n_step`: tokens to gather for a decode where no text
    alone is longer.
    """

    n_ctx: int
    n_batch: int
    n_step: int
    n_cells: int
    n_seq: int


def embedding_sizes(options: LoadOptions, *, whole: bool, n_vocab: int, n_ctx_train: int) -> EmbeddingSizes:
    """The sizes for a model; `whole`: a text must be in one decode. `n_ctx_train` may be 0: nobody knows."""
    per_token = 4 * max(1, n_vocab)
    most = min(DEFAULT_CTX, max(256, LOGITS_OF_TEXT // per_token)) if options.n_ctx is None else options.n_ctx
    # Never more than it was trained for: positions are rows of a table in many encoders.
    n_ctx = max(1, min(most, n_ctx_train or most))
    step = max(1, min(options.n_batch, max(64, LOGITS_OF_STEP // per_token)))
    n_batch = max(step, n_ctx) if whole else step
    n_cells = -(-max(n_ctx, 2 * n_batch) // CELL_STEP) * CELL_STEP
    return EmbeddingSizes(
        n_ctx=n_ctx,
        n_batch=n_batch,
        n_step=min(step, n_ctx) if whole else step,
        n_cells=n_cells,
        n_seq=min(SEQUENCES, n_batch),
    )
