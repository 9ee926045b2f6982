"""The scheduler, step by step, on real llama.cpp contexts in this process: order, room, reuse, faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jan_llamacpp.worker import outbox, scheduler, stepping
from jan_llamacpp.worker.options import LoadOptions
from jan_llamacpp.worker.protocol import Failed, Pieces
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.reply import StepPiece, Usage
from jan_llamacpp.worker.request import GenerateParams, Prompt, Sampling
from jan_llamacpp.worker.sequence import common_prefix

from .conftest import BOS, EOS, NEWLINE, MakeModel

GREEDY = Sampling(temperature=0)


class Bench:
    """A scheduler on a model, worked by hand; keeps what it sends."""

    def __init__(self, engine_dir: Path, model: Path, options: LoadOptions) -> None:
        from jan_llamacpp.worker.engine import make_engine

        self.sent: list[Pieces | Failed] = []
        self.info, self.prompts, self.scheduler = make_engine(
            engine_dir, str(model), options, self.sent.append, lambda _done: True
        )

    def ask(self, id: int, prompt: str | list[int] = "\n", **params: Any) -> None:
        tokens = self.prompts.tokens(Prompt(text=prompt)) if isinstance(prompt, str) else prompt
        params.setdefault("sampling", GREEDY)
        self.scheduler.submit(id, tokens, GenerateParams(Prompt(tokens=tokens), **params))

    def run(self, until: Callable[[], bool] = lambda: False, most: int = 20_000) -> None:
        """Step until nothing is left to do, or `until` holds."""
        for _ in range(most):
            if until() or (not self.scheduler.step() and not self.scheduler.stats().queued):
                return
        raise AssertionError("it does not end")

    def pieces(self, id: int) -> list[tuple[int, StepPiece]]:
        return [(p.step, p) for s in self.sent if isinstance(s, Pieces) for p in s.pieces if p.id == id]

    def text(self, id: int) -> str:
        return "".join(piece.text for _, piece in self.pieces(id))

    def end(self, id: int) -> StepPiece:
        ends = [piece for _, piece in self.pieces(id) if piece.finish is not None]
        assert len(ends) == 1, "a generation ends exactly once"
        return ends[0]

    def usage(self, id: int) -> Usage:
        usage = self.end(id).usage
        assert usage is not None
        return usage

    def failure(self, id: int) -> Failed:
        failures = [sent for sent in self.sent if isinstance(sent, Failed) and sent.id == id]
        assert len(failures) == 1
        return failures[0]


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(engine_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    monkeypatch.setattr(outbox, "HOLD_SECONDS", 0)  # every step is seen at once
    made: list[Bench] = []

    def make(model: Path, **options: Any) -> Bench:
        made.append(Bench(engine_dir, model, LoadOptions(**{"threads": 1, "n_seq": 4, "n_ctx": 512, **options})))
        return made[-1]

    yield make
    for each in made:
        each.scheduler._context.close()
        each.scheduler._model.close()


@pytest.fixture(scope="session")
def parrot(make_parrot: MakeModel) -> Path:
    return make_parrot("Hi,you🙂 wér!")


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


# --- the KV cache ---------------------------------------------------------------------------------------


def test_the_second_turn_of_a_conversation_reads_only_what_is_new(bench: MakeBench, parrot: Path) -> None:
    b = bench(parrot)
    first = b.prompts.tokens(Prompt(text="x" * 200 + "\n"))
    b.ask(1, first)
    b.run()
    assert b.usage(1).cached == 0
    answer = b.prompts.tokens(Prompt(text=b.text(1)))
    second = [*first, *answer, *b.prompts.tokens(Prompt(text="and\n"))]
    b.ask(2, second)
    b.run()
    assert b.usage(2).cached == len(first) + len(answer)
    assert b.text(2) == b.text(1)


@pytest.mark.parametrize(("n_cells", "split"), [(2048, True), (1024, False)])
def test_a_prefix_is_shared_with_a_sequence_that_still_generates(
    bench: MakeBench, babble: Path, n_cells: int, split: bool
) -> None:
    prompt = "the same long beginning, " * 8
    plain = bench(babble)
    plain.ask(1, prompt + "B", max_tokens=20)
    plain.run()
    b = bench(babble, n_cells=n_cells)
    assert b.scheduler._context.split is split
    b.ask(1, prompt + "A", max_tokens=60)
    b.run(until=lambda: len(b.pieces(1)) >= 2)
    b.ask(2, prompt + "B", max_tokens=20)
    b.run()
    assert b.usage(2).cached == len(b.prompts.tokens(Prompt(text=prompt)))
    assert b.text(2) == plain.text(1), "and the shared cells hold the same"


def test_a_request_waits_for_one_that_reads_the_same_prefix(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=2048, n_cells=8192, n_batch=64)
    for id in (1, 2, 3):
        b.ask(id, "x" * 1000 + f"{id}\n", max_tokens=4)
    b.run()
    assert [b.usage(id).cached for id in (1, 2, 3)] == [0, 1000, 1000]


def test_idle_cells_make_room_for_new_requests(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=512, n_cells=512, n_seq=4)
    for id in range(1, 9):
        b.ask(id, chr(64 + id) * 300 + "\n", max_tokens=4)
        b.run()
        assert b.end(id).finish == "length"
        assert b.scheduler.stats().cells_used <= 512


def test_when_the_cells_run_out_the_youngest_waits_and_nobodys_text_changes(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=1024, n_cells=1024, n_seq=4)
    for id in (1, 2, 3):
        b.ask(id, "\n")
    b.run()
    assert b.scheduler.stats().preempted > 0
    alphabet = "abcdefghijklmnopqrstuvwxyz" * 40
    for id in (1, 2, 3):
        assert b.text(id) == alphabet[:1023]
        assert b.usage(id).completion == 1023
    ends = [b.pieces(id)[-1][0] for id in (1, 2, 3)]
    assert ends == sorted(ends), "the oldest always goes on"


def test_a_sampled_answer_is_the_same_if_it_had_to_wait(bench: MakeBench, endless: Path) -> None:
    """Its random state and its penalties go with it. So hot that it is nearly all chance; free of rounding."""
    never = dict.fromkeys((BOS, EOS - 1, EOS), -100.0)
    sampling = Sampling(temperature=20, top_k=8, top_p=1, min_p=0, seed=5, repeat_penalty=1.2, logit_bias=never)
    plain = bench(endless, n_ctx=768)
    plain.ask(9, sampling=sampling)
    plain.run()
    b = bench(endless, n_ctx=768, n_cells=768)
    b.ask(1)
    b.ask(9, sampling=sampling)
    b.run()
    assert b.scheduler.stats().preempted > 0
    assert b.text(9) == plain.text(9)
    assert b.text(9) != b.text(1)


def test_an_answer_that_has_begun_is_not_ended_for_waiting_too_long(
    bench: MakeBench, endless: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = bench(endless, n_ctx=768, n_cells=768)
    for id in (1, 2):
        b.ask(id, queue_seconds=3600)
    b.run(until=lambda: b.scheduler.stats().active == 2)
    # The scheduler's own clock only: event loops in other threads of the tests live by the real one.
    late = SimpleNamespace(monotonic=lambda: time.monotonic() + 7200, perf_counter=time.perf_counter)
    monkeypatch.setattr(scheduler, "time", late)
    b.run()
    assert b.scheduler.stats().preempted > 0
    assert [b.end(id).finish for id in (1, 2)] == ["length", "length"]


# --- faults ---------------------------------------------------------------------------------------------


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


def test_the_common_prefix_is_that_of_the_definition() -> None:
    for a, b in (([], [1]), ([1, 2, 3], [1, 2, 4]), ([1], [1]), (list(range(100)), [*range(77), 5])):
        expected = 0
        while expected < min(len(a), len(b)) and a[expected] == b[expected]:
            expected += 1
        assert common_prefix(a, b) == expected
    assert ord("\n") == NEWLINE
