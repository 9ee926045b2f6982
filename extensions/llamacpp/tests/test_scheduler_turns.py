"""Whose turn it is, several answers to one prompt, and contexts that are shifted."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jan_llamacpp.worker import stepping
from jan_llamacpp.worker.admission import PATIENCE, Queue
from jan_llamacpp.worker.protocol import Pieces
from jan_llamacpp.worker.refusal import Refusal
from jan_llamacpp.worker.remembered import Remembered, Remembrance
from jan_llamacpp.worker.request import GenerateParams, Grammar, Prompt, Sampling
from jan_llamacpp.worker.sequence import Sequence, Slot
from jan_llamacpp.worker.speculation import Costs
from jan_llamacpp.worker.state import SavedState
from jan_llamacpp.worker.text import TextStream

from .scheduler_bench import Bench, MakeBench

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def waiting(arrival: int, priority: Any = "interactive", since: float = 0.0) -> Sequence:
    params = GenerateParams(Prompt(tokens=[1]), priority=priority)
    return Sequence(arrival, 0, arrival, [1], 9, 8, False, params, TextStream(), since)


def test_a_person_comes_before_a_batch_job_and_each_in_the_order_they_came() -> None:
    queue = Queue()
    for sequence in (waiting(1, "batch"), waiting(2), waiting(3, "batch"), waiting(4)):
        queue.add(sequence)
    assert [each.arrival for each in queue.in_turn(1.0)] == [2, 4, 1, 3]


def test_a_batch_job_that_waited_long_enough_is_not_passed_any_more() -> None:
    queue = Queue()
    queue.add(waiting(1, "batch", since=0.0))
    queue.add(waiting(2, since=PATIENCE))
    assert queue.in_turn(PATIENCE - 1)[0].arrival == 2
    assert queue.in_turn(PATIENCE)[0].arrival == 1


def test_somebody_who_waits_is_let_in_before_batch_jobs_that_came_first(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=1)
    b.ask(1, max_tokens=30, priority="batch")
    b.ask(2, max_tokens=30, priority="batch")
    b.ask(3, max_tokens=5)
    b.run()
    ends = [p.id for sent in b.sent if isinstance(sent, Pieces) for p in sent.pieces if p.finish]
    assert ends == [3, 1, 2]


def test_a_batch_job_gives_its_place_up_and_ends_with_the_same_text(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=1, speculate=False)
    b.ask(1, max_tokens=60, priority="batch")
    b.run(until=lambda: len(b.pieces(1)) >= 10)
    b.ask(2, "x", max_tokens=3)
    b.run()
    assert b.scheduler.stats().preempted == 1
    assert b.pieces(2)[-1][0] < b.pieces(1)[-1][0], "the person's answer was over first"
    assert b.text(1) == (ALPHABET * 3)[:60]
    assert b.usage(1).completion == 60


def test_batch_jobs_are_not_put_out_for_a_request_that_would_not_fit_anyway(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=2, n_ctx=512, n_cells=768, speculate=False)
    b.ask(1, max_tokens=450)
    b.ask(2, max_tokens=200, priority="batch")
    b.run(until=lambda: len(b.pieces(2)) >= 3)
    b.ask(3, max_tokens=450)
    b.run()
    assert b.scheduler.stats().preempted == 0
    assert [b.end(id).finish for id in (1, 2, 3)] == ["length"] * 3


# --- out of the way -------------------------------------------------------------------------------------

STORY = "Once upon a time there was a king who had a daughter, and she had a frog. " * 8


def test_idle_conversations_leave_the_cache_to_those_that_go_on_and_come_back(bench: MakeBench, babble: Path) -> None:
    def turns(**options: Any) -> list[tuple[str, int]]:
        b = bench(babble, n_ctx=2048, n_cells=4096, **options)
        said = []
        for id, prompt in enumerate([f"{number} {STORY}" for number in range(3)] * 2, 1):
            b.ask(id, prompt, max_tokens=10)
            b.run()
            said.append((b.text(id), b.usage(id).cached))
        return said

    away, stayed = turns(), turns(memory_bytes=0)
    assert [text for text, _ in away] == [text for text, _ in stayed]
    assert [cached > 500 for _, cached in away] == [False] * 3 + [True] * 3


def test_while_one_goes_on_the_others_take_no_cells(bench: MakeBench, babble: Path) -> None:
    b = bench(babble, n_ctx=2048, n_cells=4096)
    for id in (1, 2, 3):
        b.ask(id, f"{id} {STORY}", max_tokens=10)
        b.run()
    assert b.scheduler.stats().cells_used < 700


def test_what_is_too_large_to_be_remembered_stays_where_it_is(bench: MakeBench, babble: Path) -> None:
    b = bench(babble, n_ctx=2048, n_cells=4096, memory_bytes=1000)
    for id in (1, 2, 1 + 2):
        b.ask(id, f"{id % 2} {STORY}", max_tokens=10)
        b.run()
    assert b.usage(3).cached > 500


def test_a_state_that_is_too_large_pushes_nothing_else_out() -> None:
    kept = Remembered(100)
    for size in (40, 40, 101):
        kept.add(Remembrance(SavedState([size], bytearray(size)), None, 0))
    assert [len(each.state.data) for each in kept] == [40, 40]
    kept.add(Remembrance(SavedState([], bytearray(41)), None, 0))
    assert [len(each.state.data) for each in kept] == [40, 41]


def test_a_copy_that_llama_cpp_has_not_made_yet_is_neither_read_nor_written_over(
    bench: MakeBench,
    babble: Path,
) -> None:
    b = bench(babble, n_ctx=512, n_cells=2048)
    context = b.scheduler._context
    assert context.split
    b.ask(1, STORY[:300], max_tokens=1)
    b.run()
    data = context.state(0)
    context.share(0, 3, 100)
    assert (context.state(0), context.state(3), context.restore(3, data)) == (bytearray(), bytearray(), False)
    b.ask(2, "x", max_tokens=1)
    b.run()
    assert len(context.state(0)) == len(data)
    assert context.state(3)


def test_guesses_of_an_answer_that_fails_are_not_left_in_the_cells(
    bench: MakeBench,
    endless: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    b = bench(endless, n_ctx=1024)
    monkeypatch.setattr(Costs, "worth", lambda self, rows, draft, rate, stake: draft)
    b.ask(1, max_tokens=500)
    plan, failed = b.scheduler._stepper.plan, []

    def planned() -> Any:
        parts = plan()
        if parts and parts[0].guesses > 3 and not failed:
            failed.append(parts[0].slot)
            parts[0].slot.sequence.sampler.sample = fail  # type: ignore[union-attr]
        return parts

    def fail(*_: Any) -> int:
        raise Refusal("generation_failed", "a defect")

    monkeypatch.setattr(b.scheduler._stepper, "plan", planned)
    b.run()
    assert b.failure(1).type == "generation_failed"
    b.ask(2, "\n" + b.text(1) + "a", max_tokens=5, speculate=False)  # goes on with all its cells
    b.run()
    assert (b.text(2), b.end(2).finish) == ("bcdef", "length")
    assert b.usage(2).cached > 10


# --- several answers ------------------------------------------------------------------------------------


def by_index(b: Bench, id: int) -> dict[int, str]:
    texts: dict[int, str] = {}
    for _, piece in b.pieces(id):
        texts[piece.index] = texts.get(piece.index, "") + piece.text
    return texts


def test_n_answers_share_the_prompt_and_each_has_its_own_seed(bench: MakeBench, babble: Path) -> None:
    b = bench(babble)
    prompt = "a prompt that is long enough to be worth sharing, which takes sixty-four tokens or more"
    b.ask(1, prompt, n=3, max_tokens=20, sampling=Sampling(temperature=1.0, seed=5), speculate=False)
    b.run()
    texts = by_index(b, 1)
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) == 3
    ends = {piece.index: piece for _, piece in b.pieces(1) if piece.finish}
    assert [ends[index].usage.cached for index in (1, 2)] == [len(prompt) - prompt.count("he") - 1] * 2  # type: ignore[union-attr]
    for index in range(3):
        alone = bench(babble)
        alone.ask(1, prompt, max_tokens=20, sampling=Sampling(temperature=1.0, seed=5 + index))
        alone.run()
        assert alone.text(1) == texts[index]


def test_all_answers_of_a_request_are_cancelled_together(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_seq=2)
    b.ask(1, n=3, max_tokens=400)
    b.run(until=lambda: len(b.pieces(1)) >= 4)
    b.scheduler.cancel(1)
    b.run()
    assert sorted(p.index for _, p in b.pieces(1) if p.finish == "cancelled") == [0, 1, 2]


def test_answers_without_number_are_refused(bench: MakeBench, endless: Path) -> None:
    b = bench(endless)
    for n in (0, -1, 1000):
        with pytest.raises(Refusal, match="n is"):
            b.ask(1, n=n)


def test_log_probabilities_come_with_their_tokens_guessed_ones_too(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=1024)
    b.ask(1, max_tokens=300, logprobs=2)
    b.run()
    told = [each for _, piece in b.pieces(1) for each in piece.logprobs or []]
    assert b"".join(each.token for each in told).decode() == b.text(1) == (ALPHABET * 12)[:300]
    assert all(len(each.top) == 2 and each.top[0] == (each.token, each.logprob) for each in told)
    assert b.usage(1).accepted > 0


def test_a_grammar_holds_for_guessed_tokens_too(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=1024)
    b.ask(1, max_tokens=300, grammar=Grammar(gbnf='root ::= [a-z]{100} "!" [a-z]{150}'))
    b.run()
    lines = b.text(1).split("!")
    assert [len(line) for line in lines] == [100, 150]
    assert b.end(1).finish == "stop"
    assert b.usage(1).accepted > 0


# --- shifting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, True])
def test_a_shifted_context_lets_an_answer_go_on_past_its_end(
    bench: MakeBench,
    endless: Path,
    shared: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    b = bench(endless, n_ctx=256, n_cells=1024)
    if shared:  # as if another sequence held some of the cells, too
        monkeypatch.setattr(b.scheduler._context, "shift", lambda *_: False)
    b.ask(1, max_tokens=1000, overflow="shift", keep=1)
    b.run()
    assert (b.text(1), b.end(1).finish) == ((ALPHABET * 39)[:1000], "length")
    assert b.usage(1).completion == 1000


def test_without_shifting_the_same_answer_is_refused_with_what_would_fit(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=256, n_cells=1024)
    with pytest.raises(Refusal) as refused:
        b.ask(1, max_tokens=1000)
    assert refused.value.data["max_allowed"] == 255


def test_a_prompt_that_is_too_long_loses_its_middle_where_shifting_is_allowed(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=256, n_cells=1024)
    b.ask(1, ALPHABET * 20, max_tokens=10, overflow="shift", keep=4)
    b.run()
    assert b.text(1) == ALPHABET[:10]
    assert b.usage(1).prompt < 256


def test_the_system_message_is_what_a_conversation_keeps(bench: MakeBench, embedded: Path) -> None:
    prompts = bench(embedded, n_ctx=512).prompts
    system, user = {"role": "system", "content": "You are kind."}, {"role": "user", "content": "Hello"}
    both, alone = Prompt(messages=[system, user]), Prompt(messages=[user])
    lead = prompts.lead(both, prompts.tokens(both))
    kept = b"".join(prompts._model.written(token) for token in prompts.tokens(both)[:lead])
    assert b"You are kind." in kept
    assert b"Hello" not in kept
    assert prompts.lead(alone, prompts.tokens(alone)) == 0
    assert prompts.lead(Prompt(text="x"), [1]) == 0


def test_an_endless_answer_without_a_limit_ends_even_where_the_context_is_shifted(
    bench: MakeBench,
    endless: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("jan_llamacpp.worker.scheduler.ENDLESS", 3)
    b = bench(endless, n_ctx=256, n_cells=512)
    b.ask(1, overflow="shift")
    b.ask(2, overflow="shift")
    b.run()
    assert [b.usage(id).completion for id in (1, 2)] == [768, 768]


def test_step_age_is_the_age_of_the_step_that_runs(bench: MakeBench, endless: Path, monkeypatch: Any) -> None:
    b = bench(endless)
    ages: list[float] = []
    real = b.scheduler._context.decode

    def decode(rows: int) -> int:
        later = SimpleNamespace(monotonic=lambda: b.scheduler._stepper.began + 7)
        with monkeypatch.context() as patch:
            patch.setattr("jan_llamacpp.worker.scheduler.time", later)
            ages.append(b.scheduler.stats().step_age)
        return real(rows)

    monkeypatch.setattr(b.scheduler._context, "decode", decode)
    b.ask(1, max_tokens=2)
    b.run()
    assert ages == [pytest.approx(7)] * len(ages)
    assert b.scheduler.stats().step_age == 0


def test_who_waits_for_a_prefix_that_another_reads_holds_nobody_else_up(
    bench: MakeBench,
    endless: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepping, "ALONE_SECONDS", 0)
    b = bench(endless, n_ctx=1024, speculate=False)
    b.ask(1, "x" * 800 + "\n", max_tokens=2)
    b.scheduler.step()
    b.ask(2, "x" * 700 + "y\n", max_tokens=2)
    b.ask(3, "z\n", max_tokens=2)
    b.run()
    assert [b.pieces(id)[0][0] for id in (3, 1, 2)] == sorted(b.pieces(id)[0][0] for id in (1, 2, 3))
    assert b.usage(2).cached >= 700, "it was worth the wait"


def test_a_short_prompt_does_not_wait_for_a_long_one_and_that_not_for_ever(
    bench: MakeBench,
    endless: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stepping, "ALONE_SECONDS", 0)
    b = bench(endless, n_ctx=4096, n_cells=8192, speculate=False)
    b.ask(1, "a" * 3000 + "\n", max_tokens=1)
    b.run(until=lambda: b.scheduler.stats().steps == 3)
    b.ask(2, "b" * 100 + "\n", max_tokens=1)
    b.run(until=lambda: b.pieces(2) != [])
    assert not b.pieces(1)
    assert b.scheduler.stats().steps <= 6
    stepper, now = b.scheduler._stepper, time.monotonic()
    stepper._prompt_seconds = 0.01
    long, late = ordered(3000, since=now), ordered(100, since=now + 30)
    assert stepper._turn(ordered(100, since=now + 5), now) < stepper._turn(long, now) < stepper._turn(late, now)


def ordered(length: int, since: float) -> Slot:
    params = GenerateParams(Prompt(tokens=[1]))
    return Slot(0, sequence=Sequence(1, 0, 1, [1] * length, 9, 8, False, params, TextStream(), since))
