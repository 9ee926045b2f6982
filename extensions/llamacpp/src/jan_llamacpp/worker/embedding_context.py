"""A context that makes embeddings: every token of a batch is an output, and a row of numbers comes back for each.

llama.cpp's own pooling works on one micro-batch, so it is used for `rank` alone (which has weights of its own); the
other kinds are made from the rows, in `pooling.py`. That is the same arithmetic, and a long text can be read in parts.

Must be created and used by one thread (see `context.py`). Decides nothing: what goes into a batch is `embedder.py`'s.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from .cutoff import Cutoff
from .model import Model
from .native import KV_TYPES, Native
from .options import LoadOptions, Pooling
from .refusal import Refusal
from .sizes import CELL_STEP, embedding_sizes

__all__ = ["EmbeddingContext", "Rows"]

_POOLINGS: dict[Pooling, int] = {"none": 0, "mean": 1, "cls": 2, "last": 3, "rank": 4}  # enum llama_pooling_type
_UNSPECIFIED = -1

Rows = np.ndarray[Any, np.dtype[np.float32]]


class EmbeddingContext:
    """Its sizes are those of `EmbeddingSizes`.

    `whole`: a text must be in one decode (its tokens look at those after them, too). `size`: numbers in a vector;
    `pooling`: how the rows of a text become one.

    Raises Refusal("model_load_failed").
    """

    def __init__(self, native: Native, model: Model, options: LoadOptions, threads: int) -> None:
        self._c = c = native.c
        self._seq_rm = native.seq_rm
        self._set_n_threads = native.set_n_threads
        memory, causal, own = self._probe(c, model)
        self._encodes = bool(c.llama_model_has_encoder(model.handle))
        self.whole = not memory or not causal or self._encodes
        self.pooling = _pooling(options.pooling, own, causal=not self.whole)
        self.size = int(c.llama_model_n_embd_out(model.handle))
        if self.pooling == "rank":
            self.size = int(c.llama_model_n_cls_out(model.handle))
        sizes = embedding_sizes(
            options,
            whole=self.whole,
            n_vocab=model.n_vocab,
            n_ctx_train=model.n_ctx_train,
        )
        self.n_ctx, self.n_batch, self.n_step = sizes.n_ctx, sizes.n_batch, sizes.n_step
        self.n_cells, self.n_seq = sizes.n_cells, sizes.n_seq
        self._flag = ctypes.create_string_buffer(2)
        self._cutoff: Cutoff | None = None
        if memory and self.pooling != "rank" and not c.llama_supports_gpu_offload():  # without a cache: no logits
            with suppress(OSError, AttributeError):
                self._cutoff = Cutoff(native)
        self.handle: Any = c.llama_init_from_model(model.handle, self._params(model, options, threads))
        if not self.handle:
            raise Refusal("model_load_failed", f"no context for texts of {self.n_ctx} tokens could be made")
        self._memory = c.llama_get_memory(self.handle)
        self._compute = c.llama_encode if self._encodes else c.llama_decode
        self._make_batch(self.n_batch)

    @staticmethod
    def _probe(c: Any, model: Model) -> tuple[bool, bool, int]:
        """Whether the model has a KV cache, whether its attention is causal, and its own pooling.

        Asked of a context of the smallest size: no list of architectures has to be kept here.
        """
        params = c.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = CELL_STEP
        params.embeddings, params.no_perf = True, True
        handle = c.llama_init_from_model(model.handle, params)
        if not handle:
            raise Refusal("model_load_failed", "no context could be made")
        try:
            return (
                bool(c.llama_get_memory(handle)),
                bool(c.llama_get_causal_attn(handle)),
                int(c.llama_pooling_type(handle)),
            )
        finally:
            c.llama_free(handle)

    def _params(self, model: Model, options: LoadOptions, threads: int) -> Any:
        c = self._c
        params = c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = self.n_cells, self.n_seq
        params.n_batch = params.n_ubatch = self.n_batch
        params.n_threads = params.n_threads_batch = threads
        params.embeddings, params.kv_unified, params.no_perf = True, True, True
        params.pooling_type = _POOLINGS["rank" if self.pooling == "rank" else "none"]
        params.type_k = params.type_v = KV_TYPES[options.kv_type]
        if self._cutoff:
            params.cb_eval = self._cutoff.callback
        libc = ctypes.CDLL(None) if os.name == "posix" else ctypes.CDLL("msvcrt")
        params.abort_callback = ctypes.cast(libc.strlen, c.ggml_abort_callback)  # as in context.py
        params.abort_callback_data = ctypes.cast(self._flag, ctypes.c_void_p)
        return params

    def _make_batch(self, size: int) -> None:
        int32, pointer = ctypes.c_int32, ctypes.POINTER(ctypes.c_int32)
        tokens, positions, ids, counts = ((int32 * size)() for _ in range(4))
        outputs = (ctypes.c_int8 * size)(*([1] * size))
        base = ctypes.addressof(ids)
        seq_ids = (pointer * size)(*(ctypes.cast(base + 4 * i, pointer) for i in range(size)))
        counts[:] = [1] * size
        self._tokens, self._positions = np.ctypeslib.as_array(tokens), np.ctypeslib.as_array(positions)
        self._ids = np.ctypeslib.as_array(ids)
        self._keep = (tokens, positions, ids, counts, outputs, seq_ids)
        self._batch = self._c.llama_batch(
            n_tokens=0,
            token=ctypes.cast(tokens, pointer),
            embd=None,
            pos=ctypes.cast(positions, pointer),
            n_seq_id=ctypes.cast(counts, pointer),
            seq_id=ctypes.cast(seq_ids, ctypes.POINTER(pointer)),
            logits=ctypes.cast(outputs, ctypes.POINTER(ctypes.c_int8)),
        )

    def put(self, at: int, seq: int, position: int, tokens: Sequence[int]) -> int:
        """Write `tokens` of sequence `seq` into the batch from row `at`; returns the row after the last."""
        end = at + len(tokens)
        self._tokens[at:end] = tokens
        self._positions[at:end] = np.arange(position, position + len(tokens))
        self._ids[at:end] = seq
        return end

    def decode(self, rows: int) -> int:
        """Evaluate the first `rows` rows. 0: done; 2: aborted; anything else: an error."""
        self._batch.n_tokens = rows
        if self._cutoff:
            self._cutoff.begin()
        status = int(self._compute(self.handle, self._batch))
        if self._cutoff and status == 0:
            self._cutoff.done()
        return status

    def rows(self, count: int) -> Rows:
        """The numbers of the batch's first `count` rows: a view of llama.cpp's memory, good until the next decode."""
        pointer = self._c.llama_get_embeddings(self.handle)
        if not pointer:
            raise RuntimeError("there are no embeddings")
        return np.ctypeslib.as_array(pointer, shape=(count, self.size))

    def score(self, seq: int) -> Rows:
        """What the classification head makes of a sequence (pooling `rank`): likewise a view."""
        pointer = self._c.llama_get_embeddings_seq(self.handle, seq)
        if not pointer:
            raise RuntimeError(f"there is no score for sequence {seq}")
        return np.ctypeslib.as_array(pointer, shape=(self.size,))

    def clear(self, seq: int) -> None:
        """Forget a sequence."""
        if self._memory:
            self._seq_rm(self._memory, seq, -1, -1)

    def abort(self) -> None:
        """Make a running decode return 2 as soon as it can (any thread; CPU builds only). Until `resume`."""
        self._flag[0] = b"\x01"

    def resume(self) -> None:
        """Let decodes run again."""
        self._flag[0] = b"\x00"

    def set_threads(self, count: int) -> None:
        self._set_n_threads(self.handle, count, count)


def _pooling(chosen: Pooling | None, own: int, *, causal: bool) -> Pooling:
    """The pooling to use: the chosen one, or the model's own. A model that names none: where only the last token has
    seen the whole text, the last; else the mean.
    """
    if chosen is not None:
        return chosen
    for name, number in _POOLINGS.items():
        if number == own != _POOLINGS["none"]:
            return name
    return "last" if causal else "mean"
