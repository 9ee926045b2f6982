"""Thoughts told apart from the answer, however the text was cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.reasoning import ReasoningStream


def run(pieces: list[str]) -> tuple[str, str]:
    stream = ReasoningStream()
    found = [*map(stream.feed, pieces), stream.finish()]
    return "".join(thoughts for thoughts, _ in found), "".join(text for _, text in found)


@pytest.mark.parametrize(
    ("answer", "thoughts", "text"),
    [
        ("<think>\nWell <b>, < and </thin\n\n</think>\n\nHello </think>", "Well <b>, < and </thin", "Hello </think>"),
        ("\n<think>\n\n</think>\n\nHello", "", "Hello"),
        ("<think>No end in sight \n", "No end in sight", ""),
        ("<think>cut off </thi", "cut off </thi", ""),
        ("Hello <think>x</think>", "", "Hello <think>x</think>"),
        (" <thinking>", "", " <thinking>"),
        ("", "", ""),
        ("<thin", "", "<thin"),
    ],
)
@given(st.lists(st.integers(0, 60), max_size=8))
def test_thoughts_come_apart_from_the_answer(answer: str, thoughts: str, text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    assert run([answer[a:b] for a, b in pairwise(edges)]) == (thoughts, text)


def test_thoughts_are_streamed_as_they_come() -> None:
    stream = ReasoningStream()
    assert stream.feed("<think>One ") == ("One", "")
    assert stream.feed("two") == (" two", "")
    assert stream.feed("</think> And") == ("", "And")


@given(st.text(), st.lists(st.integers(0, 40), max_size=5))
def test_text_that_does_not_begin_with_thoughts_passes_as_it_is(text: str, cuts: list[int]) -> None:
    text = "x" + text
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    assert run([text[a:b] for a, b in pairwise(edges)]) == ("", text)
