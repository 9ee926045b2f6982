"""What fails in a step of the scheduler, and whom it does not end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.worker import scheduler
from jan_llamacpp.worker.request import GenerateParams, Sampling

from .scheduler_bench import MakeBench


def test_a_request_that_cannot_be_admitted_ends_alone(
    bench: MakeBench, parrot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(parrot)
    real = scheduler.make_sampler

    def sampler(native: Any, model: Any, params: GenerateParams, index: int) -> Any:
        if params.sampling.seed == 13:
            raise OverflowError("a defect")
        return real(native, model, params, index)

    monkeypatch.setattr(scheduler, "make_sampler", sampler)
    b.ask(1)
    b.ask(2, sampling=Sampling(seed=13))
    b.run()
    assert b.text(1) == "Hi,you🙂 wér!"
    assert b.failure(2).type == "generation_failed"
    assert "OverflowError" in b.failure(2).message


def test_a_decode_that_fails_ends_only_the_sequence_at_fault(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(endless)
    context = b.scheduler._context
    real = context.decode

    def decode(rows: int) -> int:
        return -3 if (context._tokens[:rows] == ord("!")).any() else real(rows)

    monkeypatch.setattr(context, "decode", decode)
    b.ask(1, "\n", max_tokens=20)
    b.ask(2, "!\n", max_tokens=20)
    b.ask(3, "?\n", max_tokens=20)
    b.run()
    assert b.failure(2).type == "generation_failed"
    alphabet = "abcdefghijklmnopqrst"
    assert (b.text(1), b.text(3), b.text(2)) == (alphabet, alphabet, "")
    b.ask(4, "\n", max_tokens=3)
    b.run()
    assert b.text(4) == "abc"


def test_a_defect_in_one_sequences_sampling_ends_only_that_one(bench: MakeBench, endless: Path) -> None:
    b = bench(endless)
    b.ask(1, max_tokens=20)
    b.ask(2, max_tokens=20)
    b.run(until=lambda: len(b.pieces(2)) >= 3)
    slot = next(s for s in b.scheduler._cache.active if s.sequence is not None and s.sequence.id == 2)
    assert slot.sequence is not None
    slot.sequence.sampler = None
    b.run()
    assert b.failure(2).type == "generation_failed"
    assert "AssertionError" in b.failure(2).message
    assert b.end(1).finish == "length"


def test_an_aborted_decode_costs_the_others_nothing(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(endless)
    context = b.scheduler._context
    real, calls = context.decode, []

    def decode(rows: int) -> int:
        calls.append(rows)
        if len(calls) % 3 == 0:
            context.abort()
        return real(rows)

    monkeypatch.setattr(context, "decode", decode)
    b.ask(1, max_tokens=20)
    b.ask(2, max_tokens=20)
    b.run()
    assert b.text(1) == b.text(2) == "abcdefghijklmnopqrst"
    assert len(calls) > 25


def test_a_bad_bias_is_refused_and_the_queue_goes_on(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot, n_seq=1)
    b.ask(1, sampling=Sampling(temperature=0, logit_bias={260: 1.0}))
    b.ask(2)
    b.run()
    assert b.failure(1).type == "invalid_generation"
    assert b.end(2).finish == "stop"
