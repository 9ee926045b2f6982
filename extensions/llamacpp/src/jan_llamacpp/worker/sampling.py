"""Choosing the next token from a row of logits.

What touches only a few tokens (biases, penalties) and what needs the whole vocabulary (argmax, top-k) is done
here on the row itself; llama.cpp's sampler chain then sees `top_k` candidates instead of the vocabulary. Its
12-byte candidate for every entry costs a millisecond and more at 150,000 entries, four times the argmax.

One sampler for each generation: it owns the random state. Knows nothing of sequences or batches.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np

from .candidates import Candidates
from .grammar import Constraint
from .model import Model
from .native import Native
from .refusal import Refusal
from .reply import TokenLogprob
from .request import GenerateParams, Sampling

__all__ = ["Sampler", "make_sampler", "top_k_indices"]

Row = np.ndarray[Any, np.dtype[np.float32]]
Indices = np.ndarray[Any, np.dtype[np.intp]]

MAX_LOGPROBS = 20
FIRST_LOOKS = 64, 1024, 8192
"""How many of the likeliest tokens a grammar is asked of, before all of them."""
NEGLIGIBLE = 1e-3
"""How likely all tokens together that a grammar was not asked of may be, against the likeliest one that it allows."""
FAST_TOP_K = 256
"""Up to here the candidates are selected here; above, the C chain sees the vocabulary."""
RANDOM_SEED = 0xFFFFFFFF
"""llama.cpp's LLAMA_DEFAULT_SEED: it means "choose one", so it cannot be used as a seed."""


def make_sampler(native: Native, model: Model, params: GenerateParams, index: int) -> Sampler:
    """The sampler of answer `index` of a request. The same seed draws other tokens for each of its answers.

    Raises Refusal("invalid_generation").
    """
    sampling = params.sampling
    if sampling.seed is not None:
        sampling = msgspec.structs.replace(sampling, seed=sampling.seed + index)
    constraint = None
    if params.grammar is not None:
        constraint = Constraint(native, model, params.grammar)
    try:
        return Sampler(native, model.n_vocab, sampling, constraint, params.logprobs, model.written, model.ends)
    except Refusal:
        if constraint is not None:
            constraint.close()
        raise


def top_k_indices(row: Row, k: int) -> Indices:
    """The indices of the `k` largest values, largest first; which of equal ones is not said. A NaN counts as
    largest, and comes last.

    Exact: with the row laid out as lines of columns, the k-th largest of the columns' maxima is a lower bound for
    what is searched; only columns that reach it are looked at, and of these only what reaches it.
    """
    lines = 128 if len(row) >= 256 * k else 16
    width = len(row) // lines
    if width <= k:
        return _largest(np.arange(len(row)), row, k)
    full = width * lines
    table = row[:full].reshape(lines, width)
    maxima = table.max(axis=0)
    best = np.partition(maxima, width - k)[width - k :]
    least = best[0]
    if best.max() != best.max():
        return _largest(np.arange(len(row)), row, k)
    columns = (maxima >= least).nonzero()[0]
    found = (table.take(columns, axis=1).ravel() >= least).nonzero()[0]
    line, column = np.divmod(found, len(columns))
    indices = line * width + columns[column]
    if full < len(row):
        rest = (row[full:] >= least).nonzero()[0]
        indices = np.concatenate([indices, rest + full])
    return _largest(indices, row[indices], k)


def _largest(indices: Indices, values: Row, k: int) -> Indices:
    if len(values) > 4 * k:
        best = np.argpartition(values, len(values) - k)[len(values) - k :]
        best.sort()
        indices, values = indices[best], values[best]
    return indices[(-values).argsort(kind="stable")[:k]]


class Sampler:
    """Draws the tokens of one answer. `close` frees its C parts.

    `constraint`: the grammar the answer must follow. `logprobs`: record what the model thought of each token and of so
    many alternatives, written as `written` says; not of tokens that `ends` says end the answer.

    Raises Refusal("invalid_generation") for numbers that mean nothing, and biases on tokens there are not.
    """

    def __init__(
        self,
        native: Native,
        n_vocab: int,
        params: Sampling,
        constraint: Constraint | None = None,
        logprobs: int | None = None,
        written: Callable[[int], bytes] = lambda token: b"",
        ends: Callable[[int], bool] = lambda token: False,
    ) -> None:
        self._native, self._params, self._n_vocab = native, params, n_vocab
        self._constraint, self._logprobs = constraint, logprobs
        self._written, self._ends = written, ends
        self.last_logprob: TokenLogprob | None = None
        """Of the token drawn last, where log-probabilities were asked for and it is no end token."""
        _check(params)
        if logprobs is not None and not 0 <= logprobs <= MAX_LOGPROBS:
            raise Refusal("invalid_generation", f"logprobs is {logprobs}; it may be 0 to {MAX_LOGPROBS}")
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
            size = params.top_k if self._fast else n_vocab if constraint is not None else 0
            self._candidates = Candidates(native, size)

    @property
    def greedy(self) -> bool:
        """Whether every token is simply the likeliest, so that nobody needs to ask `sample` for it."""
        plain = self._bias is None and not self._penalised and self._constraint is None and self._logprobs is None
        return self._greedy and plain

    def sample(self, row: Row, context: Any, index: int, tokens: Sequence[int], n_prompt: int) -> int:
        """The next token after `tokens` (the first `n_prompt` of them are the prompt).

        `row` is the logits under `index` of the context `context` (a C pointer), and is changed in place.
        Raises Refusal("generation_failed") when the model computed no numbers (NaN), or no token fits the grammar.
        """
        raw = row
        if self._bias is not None or self._penalised:
            raw = row if self._logprobs is None else row.copy()
            if self._bias is not None:
                row[self._bias[0]] += self._bias[1]
            if self._penalised:
                self._penalise(row, tokens, n_prompt)
        constraint = self._constraint
        token = self._draw(row, context, index)
        if constraint is not None:
            if not constraint.allows(token):
                token = self._draw_allowed(row, constraint)
            constraint.accept(token)
        if self._logprobs is not None:
            self.last_logprob = None
            if not self._ends(token):
                self.last_logprob = _logprob(raw, token, self._logprobs, self._written)
        return token

    def close(self) -> None:
        """Free the C parts; the sampler cannot be used any more."""
        chain, self._chain = self._chain, None
        if chain is not None:
            self._native.c.llama_sampler_free(chain)
        if self._constraint is not None:
            self._constraint.close()

    def _draw(self, row: Row, context: Any, index: int) -> int:
        if self._greedy:
            token = int(row.argmax())
            if row[token] != row[token]:
                raise _not_a_number()
            return token
        if not self._fast:
            return int(self._native.sampler_sample(self._chain, context, index))
        best = top_k_indices(row, self._params.top_k)
        return self._draw_from(best, row[best])

    def _draw_from(self, ids: Indices, logits: Row) -> int:
        """Let the chain choose among these, the likeliest first."""
        if logits[0] != logits[0] or logits[-1] != logits[-1]:  # where there is a NaN, it is at an end
            raise _not_a_number()
        token = self._candidates.draw(self._chain, ids, logits)
        self._native.sampler_accept(self._chain, token)
        return token

    def _draw_allowed(self, row: Row, constraint: Constraint) -> int:
        """Draw among what the grammar allows. It is asked of the likeliest tokens first, and of more only until there
        are enough, or until what is left cannot matter.
        """
        wanted = 1 if self._greedy else self._params.top_k or self._n_vocab
        for count in (*FIRST_LOOKS, self._n_vocab):
            if count > self._n_vocab or (count < wanted and count < self._n_vocab):
                continue
            best = top_k_indices(row, count) if count < self._n_vocab else np.arange(count)
            best = best[row[best] > -np.inf]
            least = row[best[-1]] if len(best) else -np.inf
            # The end is seldom likely, and after a whole text it is all that is allowed.
            ids = np.concatenate([best, np.array([end for end in constraint.ends if end not in best], dtype=np.intp)])
            fits = constraint.allowed(ids)
            enough = fits[: len(best)].sum() >= wanted or count == self._n_vocab
            ids = ids[fits]
            logits = row[ids]
            if len(ids) == 0:
                continue
            behind = float(least - logits.max()) / max(1.0, self._params.temperature)
            left = (self._n_vocab - count) * math.exp(min(0.0, behind))
            if enough or left < NEGLIGIBLE:
                order = np.argsort(-logits, kind="stable")[:wanted]
                if self._greedy:
                    return int(ids[order[0]])
                return self._draw_from(ids[order], logits[order])
        raise Refusal("generation_failed", "the model has no token that fits the grammar here")

    def _penalise(self, row: Row, tokens: Sequence[int], n_prompt: int) -> None:
        params, last = self._params, self._params.penalty_last_n
        start = 0 if last < 0 else max(0, len(tokens) - last)
        if params.repeat_penalty != 1.0:
            seen = np.unique(np.asarray(tokens[start:], dtype=np.intp))
            seen = seen[seen >= 0]  # the others stand for pictures
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


def _logprob(row: Row, token: int, count: int, written: Callable[[int], bytes]) -> TokenLogprob:
    """Log-probabilities of `token` and of the `count` likeliest, over the whole vocabulary."""
    most = row.max()
    total = float(most) + math.log(float(np.exp(row - most).sum(dtype=np.float64)))
    best = top_k_indices(row, count).tolist() if count else []
    top = [(written(each), float(row[each]) - total) for each in best]
    return TokenLogprob(written(token), float(row[token]) - total, top)


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
