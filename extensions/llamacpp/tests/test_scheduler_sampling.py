"""Drawing tokens: what is computed here must be what llama.cpp's own samplers compute."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker import sampling
from jan_llamacpp.worker.native import Native, load_native
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.request import Sampling
from jan_llamacpp.worker.sampling import Sampler, top_k_indices

N_VOCAB = 2000


@pytest.fixture(scope="session")
def native(engine_dir: Path) -> Native:
    return load_native(engine_dir)


def logits(seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal(N_VOCAB).astype(np.float32) * 3


def draw(native: Native, params: Sampling, count: int = 30, tokens: list[int] | None = None) -> list[int]:
    """`count` tokens from a fixed series of rows."""
    sampler = Sampler(native, N_VOCAB, params)
    drawn = list(tokens or [])
    for step in range(count):
        drawn.append(sampler.sample(logits(step), None, 0, drawn, len(tokens or [])))
    sampler.close()
    return drawn[len(tokens or []) :]


def draw_in_c(native: Native, params: Sampling, count: int = 30, tokens: list[int] | None = None) -> list[int]:
    """The same by llama.cpp's chain alone, over the whole vocabulary."""
    c = native.c
    chain = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
    add = c.llama_sampler_chain_add
    if params.logit_bias:
        bias = (c.llama_logit_bias * len(params.logit_bias))(*params.logit_bias.items())
        add(chain, c.llama_sampler_init_logit_bias(N_VOCAB, len(params.logit_bias), bias))
    penalties = params.repeat_penalty, params.frequency_penalty, params.presence_penalty
    add(chain, c.llama_sampler_init_penalties(N_VOCAB, params.penalty_last_n, *penalties))
    if params.temperature <= 0:
        add(chain, c.llama_sampler_init_greedy())
    else:
        add(chain, c.llama_sampler_init_top_k(params.top_k))
        add(chain, c.llama_sampler_init_top_p(params.top_p, 1))
        add(chain, c.llama_sampler_init_min_p(params.min_p, 1))
        add(chain, c.llama_sampler_init_temp(params.temperature))
        add(chain, c.llama_sampler_init_dist(params.seed))
    for token in tokens or []:
        c.llama_sampler_accept(chain, token)
    drawn = []
    for step in range(count):
        row = logits(step)
        data = (c.llama_token_data * N_VOCAB)(*((i, float(row[i]), 0.0) for i in range(N_VOCAB)))
        pointer = ctypes.cast(data, ctypes.POINTER(c.llama_token_data))
        array = c.llama_token_data_array(data=pointer, size=N_VOCAB, selected=-1, sorted=False)
        c.llama_sampler_apply(chain, ctypes.byref(array))
        drawn.append(int(array.data[array.selected].id))
        c.llama_sampler_accept(chain, drawn[-1])
    c.llama_sampler_free(chain)
    return drawn


@pytest.mark.parametrize(
    "params",
    [
        Sampling(temperature=0),
        Sampling(temperature=0.8, seed=1),
        Sampling(temperature=1.5, seed=2, top_k=200, top_p=1.0, min_p=0.0),
        Sampling(temperature=1.0, seed=3, top_p=0.5, min_p=0.2),
        Sampling(temperature=0, frequency_penalty=0.7, presence_penalty=0.4, penalty_last_n=8),
        Sampling(temperature=0, repeat_penalty=1.7, penalty_last_n=5),
        Sampling(temperature=0.9, seed=4, repeat_penalty=1.3, frequency_penalty=0.5, penalty_last_n=64),
        Sampling(temperature=0, logit_bias={3: 100.0, 4: 99.0}),
        Sampling(temperature=0.9, seed=5, logit_bias={3: 5.0, 7: -100.0}),
    ],
)
def test_the_tokens_are_those_of_llama_cpps_own_chain(native: Native, params: Sampling) -> None:
    assert draw(native, params) == draw_in_c(native, params)


def test_repeating_the_prompt_is_penalised_too(native: Native) -> None:
    prompt = [int(logits(step).argmax()) for step in range(20)]
    params = Sampling(temperature=0, repeat_penalty=3.0)
    assert draw(native, params, tokens=prompt) == draw_in_c(native, params, tokens=prompt)
    assert draw(native, params, tokens=prompt) != draw(native, params)


def test_frequency_and_presence_are_counted_in_the_answer_alone(native: Native) -> None:
    prompt = [int(logits(step).argmax()) for step in range(20)]
    params = Sampling(temperature=0, frequency_penalty=2.0, presence_penalty=2.0)
    assert draw(native, params, tokens=prompt) == draw(native, params)


def test_the_same_seed_draws_the_same_and_another_draws_other_tokens(native: Native) -> None:
    def hot(seed: int | None) -> list[int]:
        return draw(native, Sampling(temperature=2.0, top_k=200, top_p=1.0, min_p=0.0, seed=seed))

    assert hot(1) == hot(1) != hot(2)
    assert hot(0xFFFFFFFF) == hot(-1), "llama.cpp's word for any seed is a seed like others here"
    assert hot(None) != hot(None)


@given(st.integers(1, 5000), st.integers(1, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_the_top_k_are_the_k_largest(size: int, k: int, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    row = random.integers(0, 9, size).astype(np.float32) if ties else random.standard_normal(size, np.float32)
    best = top_k_indices(row, k)
    assert len(set(best.tolist())) == min(k, size)
    assert row[best].tolist() == sorted(row.tolist(), reverse=True)[:k]


@pytest.mark.parametrize("params", [Sampling(temperature=0), Sampling(temperature=1, seed=1)])
def test_a_model_that_computes_no_numbers_is_a_typed_failure(native: Native, params: Sampling) -> None:
    row = logits(0)
    row[5] = np.nan
    with pytest.raises(Refusal, match="NaN") as caught:
        Sampler(native, N_VOCAB, params).sample(row, None, 0, [], 0)
    assert caught.value.type == "generation_failed"


@pytest.mark.parametrize(
    "params",
    [
        Sampling(logit_bias={N_VOCAB: 1.0}),
        Sampling(logit_bias={-1: 1.0}),
        Sampling(logit_bias={2**63: 1.0}),
        Sampling(repeat_penalty=0.0),
        Sampling(temperature=float("nan")),
        Sampling(top_p=float("inf")),
        Sampling(presence_penalty=float("nan")),
    ],
)
def test_parameters_without_meaning_are_refused(native: Native, params: Sampling) -> None:
    with pytest.raises(Refusal) as caught:
        Sampler(native, N_VOCAB, params)
    assert caught.value.type == "invalid_generation"


def test_a_tiny_vocabulary_has_no_more_candidates_than_tokens(native: Native) -> None:
    assert sampling.FAST_TOP_K >= 40
    row = np.arange(10, dtype=np.float32)
    assert top_k_indices(row, 40).tolist() == list(range(9, -1, -1))
