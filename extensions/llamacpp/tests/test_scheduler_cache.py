"""What the scheduler keeps in the KV cache, shares and gives up, on real llama.cpp contexts in this process."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from jan_llamacpp.worker import scheduler
from jan_llamacpp.worker.request import Prompt, Sampling
from jan_llamacpp.worker.sequence import common_prefix

from .conftest import BOS, EOS, NEWLINE
from .scheduler_bench import MakeBench


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


def test_the_common_prefix_is_that_of_the_definition() -> None:
    for a, b in (([], [1]), ([1, 2, 3], [1, 2, 4]), ([1], [1]), (list(range(100)), [*range(77), 5])):
        expected = 0
        while expected < min(len(a), len(b)) and a[expected] == b[expected]:
            expected += 1
        assert common_prefix(a, b) == expected
    assert ord("\n") == NEWLINE
