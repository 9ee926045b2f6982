"""The scheduler, step by step, on real llama.cpp contexts in this process: order, room, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jan_llamacpp.worker import outbox, stepping
from jan_llamacpp.worker.protocol import Pieces
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.request import Sampling

from .scheduler_bench import Bench, MakeBench


def test_an_answer_ends_where_the_model_ends_it(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot)
    b.ask(1)
    b.run()
    assert b.text(1) == "Hi,you🙂 wér!"
    end = b.end(1)
    assert (end.finish, b.usage(1).prompt, b.usage(1).completion) == (
        "stop",
        1,
        len("Hi,you🙂 wér!".encode()) + 1,
    )


def test_characters_of_several_tokens_come_whole(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot)
    for id in range(1, 15):
        b.ask(id, max_tokens=id)
    b.run()
    data = "Hi,you🙂 wér!".encode()
    for id in range(1, 15):
        assert b.text(id) == data[:id].decode(errors="ignore")
        assert b.end(id).finish == "length"


def test_a_stop_string_across_tokens_is_never_shown(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot)
    b.ask(1, stop=["u🙂 w", "zzz"])
    b.ask(2, stop=["you!"])
    b.run()
    assert (b.text(1), b.end(1).finish) == ("Hi,yo", "stop")
    assert b.text(2) == "Hi,you🙂 wér!"
    assert all("u" not in piece.text for _, piece in b.pieces(1))


def test_nothing_is_generated_for_a_limit_of_nothing(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot)
    b.ask(1, max_tokens=0)
    b.run()
    assert (b.text(1), b.end(1).finish, b.usage(1).completion) == ("", "length", 0)


def test_four_answers_in_one_batch_are_the_answers_each_would_have_alone(bench: MakeBench, babble: Path) -> None:
    prompts = ["one", "and two", "or three of them", "four"]
    alone = []
    for prompt in prompts:
        b = bench(babble)
        b.ask(1, prompt, max_tokens=40)
        b.run()
        alone.append(b.text(1))
    b = bench(babble, speculate=False)
    for id, prompt in enumerate(prompts, 1):
        b.ask(id, prompt, max_tokens=40)
    b.run()
    assert [b.text(id) for id in (1, 2, 3, 4)] == alone
    together = [{step for step, _ in b.pieces(id)} for id in (1, 2, 3, 4)]
    assert len(set.intersection(*together)) > 30, "they were decoded together"


def test_a_request_joins_while_another_generates(bench: MakeBench, endless: Path) -> None:
    b = bench(endless)
    b.ask(1, max_tokens=50)
    b.run(until=lambda: len(b.pieces(1)) >= 10)
    b.ask(2, max_tokens=10)
    b.run()
    first, second = ({step for step, _ in b.pieces(id)} for id in (1, 2))
    assert second < first, "every step of the second was one of the first's"
    assert min(second) > sorted(first)[8]


def test_a_long_prompt_is_read_in_chunks_between_the_tokens_of_others(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "CHUNK_SECONDS", 0)
    b = bench(endless, n_ctx=4096, n_batch=512, speculate=False)
    b.ask(1, max_tokens=40)
    b.run(until=lambda: len(b.pieces(1)) >= 3)
    b.ask(2, "x" * 1500 + "\n", max_tokens=3)
    before = b.scheduler.stats().steps
    b.run()
    reading = [step for step, _ in b.pieces(1) if before < step < b.pieces(2)[0][0]]
    assert len(reading) >= 20, "1,500 tokens take 24 chunks, and each brought the other a token"


def test_no_small_rest_of_a_prompt_is_left_for_a_step_of_its_own(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "CHUNK_SECONDS", 0)
    for length, steps in ((64, 1), (64 + 63, 1), (64 + 64, 2), (64 + 64 + 63, 2)):
        b = bench(endless, n_ctx=1024, speculate=False)
        b.ask(1, max_tokens=40)
        b.run(until=lambda b=b: len(b.pieces(1)) >= 3)
        reads = counted_reads(b, monkeypatch)
        b.ask(2, "x" * (length - 1) + "\n", max_tokens=1)
        b.run()
        assert b.usage(2).prompt == length
        assert (len(reads), sum(reads)) == (steps, length)


def test_prompts_and_answers_take_turns_where_they_would_be_decoded_apart_anyway(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "CHUNK_SECONDS", 0)
    for cells, together in ((4 * 1024, False), (2 * 1024, True)):
        b = bench(endless, n_ctx=1024, n_cells=cells, speculate=False)
        assert b.scheduler._context.split is not together
        b.ask(1, max_tokens=40)
        b.run(until=lambda b=b: len(b.pieces(1)) >= 3)
        reads, before = counted_reads(b, monkeypatch), b.scheduler.stats().steps
        b.ask(2, "x" * 639 + "\n", max_tokens=1)
        b.run(until=lambda b=b: b.pieces(2) != [])
        answered = [step for step, _ in b.pieces(1) if step > before]
        assert len(reads) == 10
        assert len(answered) == (10 if together else 9), "a token for each chunk, but for the first"


def counted_reads(b: Bench, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The prompt tokens of each decode from now on that has some."""
    reads: list[int] = []
    decode = b.scheduler._stepper.decode

    def counting(parts: list[stepping.Part]) -> tuple[int, list[int]]:
        if read := sum(len(part.tokens) for part in parts if len(part.tokens) > 1):
            reads.append(read)
        return decode(parts)

    monkeypatch.setattr(b.scheduler._stepper, "decode", counting)
    return reads


def test_text_shares_frames_but_beginnings_and_ends_do_not_wait(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(endless, speculate=False)
    monkeypatch.setattr(outbox, "HOLD_SECONDS", 60)
    b.ask(1, max_tokens=50)
    b.ask(2, max_tokens=20)
    b.run()
    frames = [[(piece.id, piece.step) for piece in sent.pieces] for sent in b.sent if isinstance(sent, Pieces)]
    assert frames[0] == [(1, 1), (2, 1)]
    assert frames[1][-1] == (2, 20)
    assert frames[2][-1] == (1, 50)
    assert len(frames) == 3
    assert len(b.pieces(1)) == 50


def test_a_cancelled_answer_gives_its_slot_to_the_next(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=1)
    b.ask(1)
    b.ask(2, max_tokens=5)
    b.run(until=lambda: len(b.pieces(1)) >= 20)
    assert b.scheduler.stats().queued == 1
    b.scheduler.cancel(1)
    b.run()
    assert b.end(1).finish == "cancelled"
    assert b.end(2).finish == "length"
    assert b.scheduler.stats().free_slots == 1
    b.scheduler.cancel(1)
    b.scheduler.cancel(99)
    b.run()


def test_a_request_cancelled_in_the_queue_never_starts(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=1)
    b.ask(1, max_tokens=30)
    b.ask(2, max_tokens=30)
    b.scheduler.step()
    b.scheduler.cancel(2)
    b.run()
    assert b.end(2).finish == "cancelled"
    assert b.usage(2).completion == 0


def test_requests_start_in_the_order_they_came(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=2)
    for id in range(1, 7):
        b.ask(id, max_tokens=10 + id)
    b.run()
    starts = [b.pieces(id)[0][0] for id in range(1, 7)]
    assert starts == sorted(starts)


def test_what_cannot_fit_the_context_is_refused_with_the_numbers(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=100)
    for prompt, limit, allowed in (("x" * 90, 11, 10), ("x" * 100, None, 0), ("x" * 500, 1, 0)):
        with pytest.raises(Refusal) as caught:
            b.ask(1, prompt, max_tokens=limit)
        assert caught.value.type == "context_overflow"
        assert caught.value.data == {
            "n_prompt": len(prompt),
            "n_ctx": 100,
            "max_tokens": limit,
            "max_allowed": allowed,
        }


def test_without_a_limit_the_answer_fills_the_context(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=600)
    b.ask(1, "xyz\n")
    b.run()
    assert (b.end(1).finish, b.usage(1).completion) == ("length", 596)


@pytest.mark.parametrize(
    ("tokens", "params"),
    [([], {}), ([-1], {}), ([260], {}), ([1], {"max_tokens": -1}), ([1], {"stop": ["x" * 5000]})],
)
def test_prompts_and_limits_without_meaning_are_refused(
    bench: MakeBench, parrot: Path, tokens: list[int], params: dict[str, Any]
) -> None:
    with pytest.raises(Refusal) as caught:
        bench(parrot).ask(1, tokens, **params)
    assert caught.value.type == "invalid_generation"


def test_a_full_queue_and_an_expired_wait_are_overload(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=1, max_queue=2)
    b.ask(1, max_tokens=5)
    b.scheduler.step()
    b.ask(2, max_tokens=5, queue_seconds=0)
    b.ask(3, max_tokens=5)
    with pytest.raises(Refusal) as caught:
        b.ask(4, max_tokens=5)
    assert caught.value.type == "overloaded"
    b.run()
    assert b.failure(2).type == "overloaded"
    assert b.end(3).finish == "length"


@pytest.mark.parametrize("top_k", [0, 40])
def test_a_seed_draws_the_same_answer_again(bench: MakeBench, babble: Path, top_k: int) -> None:
    b = bench(babble, n_seq=1)
    for id, seed in ((1, 7), (2, 7), (3, 8)):
        bias = {10: -100.0}
        b.ask(id, "go", sampling=Sampling(temperature=3, top_k=top_k, seed=seed, logit_bias=bias), max_tokens=40)
    b.run()
    assert b.text(1) == b.text(2) != b.text(3)
    assert "\n" not in b.text(1)
