"""Choosing the next token from a row of logits.

What touches only a few tokens (biases, penalties) and what needs the whole vocabulary (argmax, top-k) is done
here on the row itself; llama.cpp's sampler chain then sees `top_k` candidates instead of the vocabulary. Its
12-byte candidate for every entry costs a millisecond and more at 150,000 entries, four times the argmax.

One sampler for each generation: it owns the random state. Knows nothing of sequences or batches.
"""

from __future__ import annotations

import ctypes
import math
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from .native import Native
from .protocol import Sampling
from .refusal import Refusal

__all__ = ["Sampler", "top_k_indices"]

Row = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.intp]]

FAST_TOP_K = 256
"""Up to here the candidates are selected here; above, the C chain sees the vocabulary."""
RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's LLAMA_DEFAULT_SEED: it means "choose one", so it cannot be used as a seed."""


def top_k_indices(row: Row, k: int) -> Indices:
    """The indices of the `k` largest values, largest first; ties in the order numpy leaves them.

    Exact: every one of the k largest lies in one of the k columns with the largest maxima, when the row is
    laid out as 128 rows of columns. That makes two small partitions of one large.
    """
    width = len(row) >> 7
    if width > k:
        full = width << 7
        table = row[:full].reshape(128, width)
        columns = np.argpartition(table.max(axis=0), width - k)[width - k :]
        indices = (columns[None, :] + (np.arange(128) * width)[:, None]).ravel()
        if full < len(row):
            indices = np.concatenate([indices, np.arange(full, len(row))])
    else:
        indices = np.arange(len(row))
    values = row[indices]
    if k < len(indices):
        best = np.argpartition(values, len(values) - k)[len(values) - k :]
        indices, values = indices[best], values[best]
    return indices[np.argsort(-values, kind="stable")]


class Sampler:
    """Draws the tokens of one generation. `close` frees its C part.

    Raises Refusal("invalid_generation") for numbers that mean nothing, and biases on tokens there are not.
    """

    def __init__(self, native: Native, n_vocab: int, params: Sampling) -> None:
        self._native, self._params, self._n_vocab = native, params, n_vocab
        _check(params)
        self._bias: tuple[Indices, Row] | None = None
        if params.logit_bias:
            if min(params.logit_bias) < 0 or max(params.logit_bias) >= n_vocab:
                raise Refusal("invalid_generation", f"logit_bias names a token outside 0..{n_vocab - 1}")
            ids = np.array(list(params.logit_bias), dtype=np.intp)
            self._bias = ids, np.array(list(params.logit_bias.values()), dtype=np.float32)
        self._penalised = params.penalty_last_n != 0 and (
            params.repeat_penalty != 1.0 or params.frequency_penalty != 0.0 or params.presence_penalty != 0.0
        )
        self._greedy = params.temperature <= 0 or params.top_k == 1
        self._fast = 0 < params.top_k <= FAST_TOP_K and params.top_k < n_vocab
        self._chain: Any = None
        if not self._greedy:
            self._chain = self._make_chain()
            if self._fast:
                self._make_candidates(params.top_k)

    def sample(self, row: Row, context: Any, index: int, tokens: Sequence[int], n_prompt: int) -> int:
        """The next token after `tokens` (the first `n_prompt` of them are the prompt).

        `row` is the logits under `index` of the context `context` (a C pointer), and is changed in place.
        Raises Refusal("generation_failed") when the model computed no numbers (NaN).
        """
        if self._bias is not None:
            row[self._bias[0]] += self._bias[1]
        if self._penalised:
            self._penalise(row, tokens, n_prompt)
        if self._greedy:
            token = int(row.argmax())
            if row[token] != row[token]:
                raise _not_a_number()
            return token
        if not self._fast:
            return int(self._native.sampler_sample(self._chain, context, index))
        best = top_k_indices(row, self._params.top_k)
        values = row[best]
        if np.isnan(values).any():
            raise _not_a_number()
        candidates = self._view
        candidates["id"], candidates["logit"], candidates["p"] = best, values, 0.0
        array = self._array
        array.size, array.selected, array.sorted = len(best), -1, True
        self._native.sampler_apply(self._chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        self._native.sampler_accept(self._chain, token)
        return token

    def close(self) -> None:
        """Free the C chain; the sampler cannot be used any more."""
        chain, self._chain = self._chain, None
        if chain is not None:
            self._native.c.llama_sampler_free(chain)

    def _penalise(self, row: Row, tokens: Sequence[int], n_prompt: int) -> None:
        params, last = self._params, self._params.penalty_last_n
        start = 0 if last < 0 else max(0, len(tokens) - last)
        if params.repeat_penalty != 1.0:
            seen = np.unique(np.asarray(tokens[start:], dtype=np.intp))
            values = row[seen]
            row[seen] = np.where(values <= 0, values * params.repeat_penalty, values / params.repeat_penalty)
        answer = tokens[max(start, n_prompt) :]
        if answer and (params.frequency_penalty or params.presence_penalty):
            seen, counts = np.unique(np.asarray(answer, dtype=np.intp), return_counts=True)
            cost = counts * params.frequency_penalty + params.presence_penalty
            row[seen] -= cost.astype(np.float32)

    def _make_chain(self) -> Any:
        c, params = self._native.c, self._params
        chain_params = c.llama_sampler_chain_default_params()
        chain_params.no_perf = True
        chain = c.llama_sampler_chain_init(chain_params)
        # llama.cpp's own order. The fast path hands over its top-k already selected.
        if not self._fast and params.top_k > 0:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_k(params.top_k))
        if params.top_p < 1:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_top_p(params.top_p, 1))
        if params.min_p > 0:
            c.llama_sampler_chain_add(chain, c.llama_sampler_init_min_p(params.min_p, 1))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_temp(params.temperature))
        c.llama_sampler_chain_add(chain, c.llama_sampler_init_dist(self._seed()))
        return chain

    def _seed(self) -> int:
        if self._params.seed is None:
            return secrets.randbelow(RANDOM_SEED)
        return (self._params.seed & 0xFFFFFFFF) % RANDOM_SEED

    def _make_candidates(self, count: int) -> None:
        c = self._native.c
        self._candidates = (c.llama_token_data * count)()
        self._view = np.frombuffer(self._candidates, dtype=np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")]))
        data = ctypes.cast(self._candidates, ctypes.POINTER(c.llama_token_data))
        self._array = c.llama_token_data_array(data=data, size=0, selected=-1, sorted=False)


def _check(params: Sampling) -> None:
    numbers = {
        "temperature": params.temperature,
        "top_p": params.top_p,
        "min_p": params.min_p,
        "repeat_penalty": params.repeat_penalty,
        "frequency_penalty": params.frequency_penalty,
        "presence_penalty": params.presence_penalty,
    }
    for name, value in numbers.items():
        if not math.isfinite(value) or (name == "repeat_penalty" and value <= 0):
            raise Refusal("invalid_generation", f"{name} is {value}")
    if not all(math.isfinite(value) for value in params.logit_bias.values()):
        raise Refusal("invalid_generation", "logit_bias holds a value that is no number")


def _not_a_number() -> Refusal:
    return Refusal("generation_failed", "the model computed no numbers (NaN): the file or the engine is damaged")
