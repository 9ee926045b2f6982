"""Guesses that repeat the text: what is guessed, when it pays, and that it changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.worker.request import Sampling
from jan_llamacpp.worker.speculation import EARNED, GRAM, MOST_DRAFTED, STAKE, TRUST, Costs, Lookup

from .scheduler_bench import MakeBench

TEXT = list(range(100, 140))


def told(tokens: list[int], more: list[int]) -> Lookup:
    """A lookup over `tokens` that was then told of `more`, one by one."""
    lookup = Lookup(tokens)
    for token in more:
        tokens.append(token)
        lookup.seen()
    return lookup


def test_what_followed_the_last_tokens_before_is_guessed_once_it_was_right_in_silence() -> None:
    tokens = [*TEXT, 1, 2]
    lookup = told(tokens, TEXT[: GRAM + TRUST - 1])
    assert lookup.guess(99) == []
    tokens.append(TEXT[GRAM + TRUST - 1])
    lookup.seen()
    assert lookup.guess(99) == TEXT[GRAM + TRUST :][: 2 * TRUST]
    assert lookup.guess(2) == TEXT[GRAM + TRUST :][:2]
    assert lookup.guess(0) == []


def test_a_repetition_that_runs_into_itself_goes_on_in_the_guess() -> None:
    tokens = [7, 8] * 2
    lookup = told(tokens, [7, 8] * 3)
    assert lookup.guess(9) == [7, 8, 7, 8, 7, 8, 7, 8, 7]


def test_guesses_grow_while_they_are_right_and_end_when_they_are_not() -> None:
    tokens = [7, 8] * 4
    lookup = told(tokens, [7, 8] * 3)
    short = len(lookup.guess(999))
    for token in [7, 8] * 5:
        tokens.append(token)
        lookup.seen()
    assert len(lookup.guess(999)) == short + 20
    high = lookup.rate
    tokens.append(9)
    lookup.seen()
    assert lookup.guess(999) == []
    assert lookup.rate < high


def test_how_often_guesses_are_right_is_known_before_any_is_spoken() -> None:
    odd = [token for number in range(1000, 1040) for token in (7, 8, 7, 8, 7, 8, number)]
    right, wrong = told([7, 8] * 4, [7, 8] * 20), told([7, 8] * 4, odd)
    assert wrong.rate < 0.8 < right.rate


def test_a_text_that_was_cut_is_looked_up_anew() -> None:
    tokens = [*TEXT, *TEXT[:10]]
    lookup = told(tokens, TEXT[10:15])
    assert lookup.guess(9)
    del tokens[5:30]
    lookup.forget()
    assert lookup.guess(9) == []
    for token in TEXT[15:25]:
        tokens.append(token)
        lookup.seen()
    lookup.guess(9)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 60))
def test_a_guess_is_made_of_the_text_whatever_the_text_is(text: list[int], most: int) -> None:
    tokens = text[:1]
    lookup = Lookup(tokens)
    for token in text[1:]:
        tokens.append(token)
        lookup.seen()
        draft = lookup.guess(most)
        assert len(draft) <= most
        assert set(draft) <= set(tokens)


def test_guesses_are_checked_where_rows_are_cheap_and_not_where_they_are_dear() -> None:
    cheap, dear = Costs(), Costs()
    for rows in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(2):
            cheap.learn(rows, 1.0 + 0.02 * rows)
            dear.learn(rows, float(rows))
    assert cheap.worth(1, 16, 0.9) == 16
    assert cheap.worth(1, 48, 0.5) < 16
    assert dear.worth(1, 16, 0.99) == 0
    assert cheap.worth(1, 1, 0.9) == 0, "one guess is not worth the trouble"


def test_one_stalled_step_does_not_make_rows_dear_for_ever() -> None:
    costs = Costs()
    for _ in range(5):
        costs.learn(8, 1.0)
    costs.learn(8, 100.0)
    assert costs.of(8) < 1.5


def test_what_was_dear_is_tried_again_after_a_while() -> None:
    costs = Costs()
    for rows in (1, 1, 8, 8, 16, 16):
        costs.learn(rows, float(rows))
    answers = [costs.worth(1, 12, 0.9) for _ in range(200)]
    assert answers[0] == 0
    assert sum(count > 0 for count in answers) > 0


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), min_size=1, max_size=200), st.floats(0, 2))
def test_no_text_makes_guesses_cost_more_than_their_stake(prompt: list[int], answer: list[int], row: float) -> None:
    costs = Costs()
    for rows in (1, 2, 4, 8, 16, 32, 64):
        for _ in range(2):
            costs.learn(rows, 1 + row * (rows - 1))
    text = list(prompt)
    lookup = Lookup(text)
    seconds = 0.0
    while len(text) - len(prompt) < len(answer):
        left = answer[len(text) - len(prompt) :]
        draft = lookup.guess(min(MOST_DRAFTED, len(left) - 1))
        count = costs.worth(1, len(draft), lookup.rate, lookup.stake) if draft else 0
        lookup.settle(-costs.extra(1, count))
        seconds += costs.of(1 + count)
        for number, token in enumerate(left[: count + 1]):
            text.append(token)
            lookup.seen()
            if number == count or draft[number] != token:
                lookup.settle(number)
                break
    alone = len(answer) * costs.of(1)
    assert seconds <= alone + (STAKE + EARNED * len(answer)) * costs.of(1) + 1e-6


PROMPTS = ["What is an extension?", "Tell me about hot reload.", "hello", "Repeat: one two three one two three one two"]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_the_answer_is_the_same_with_guesses_and_without(
    bench: MakeBench,
    embedded: Path,
    temperature: float,
) -> None:
    answers: list[list[str]] = []
    drafted = 0
    for speculate in (True, False):
        b = bench(embedded, n_ctx=1024, speculate=speculate)
        texts = []
        for id, prompt in enumerate(PROMPTS * 3, 1):
            sampling = Sampling(temperature=temperature, seed=id)
            b.ask(id, prompt, max_tokens=120, sampling=sampling, ignore_eos=True)
            b.run()
            texts.append(b.text(id))
            drafted += b.usage(id).drafted
            assert speculate or not b.usage(id).drafted
        answers.append(texts)
    assert answers[0] == answers[1]
    assert drafted > 0 or temperature > 0, "there was something to guess"


def test_a_text_that_repeats_takes_fewer_steps_and_ends_where_it_should(bench: MakeBench, endless: Path) -> None:
    b = bench(endless, n_ctx=2048)
    b.ask(1, max_tokens=500, stop=["xyzab" * 50])
    b.run()
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    assert b.text(1) == (alphabet * 20)[:500]
    assert b.usage(1).accepted > 300
    assert b.scheduler.stats().steps < 250
    b.ask(2, b.text(1)[:100], stop=["klm"], max_tokens=500)
    b.run()
    assert (b.text(2), b.end(2).finish) == ((alphabet * 2)[22:36], "stop")
    assert b.usage(2).completion == 17
    b.ask(3, speculate=False, max_tokens=100)
    b.run()
    assert b.usage(3).drafted == 0


def test_what_was_guessed_wrong_is_not_in_the_cache(bench: MakeBench, babble: Path) -> None:
    """A second turn over the first's tokens gives what a context that never guessed gives."""

    def second_turn(**options: Any) -> str:
        b = bench(babble, n_ctx=2048, **options)
        b.ask(1, "again again again", max_tokens=200)
        b.run()
        b.ask(2, "again again again" + b.text(1) + " and", max_tokens=60)
        b.run()
        return b.text(2)

    assert second_turn(speculate=True) == second_turn(speculate=False)
