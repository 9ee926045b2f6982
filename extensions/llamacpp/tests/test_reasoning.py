"""Thoughts told apart from the answer, however the text was cut into pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.harmony import HarmonyStream
from jan_llamacpp.reasoning import ReasoningStream


def run(pieces: list[str], stream: ReasoningStream | HarmonyStream | None = None) -> tuple[str, str]:
    stream = stream or ReasoningStream()
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


FINAL, THINKS = "<|channel|>final<|message|>", "<|channel|>analysis<|message|>"
NEXT = "<|end|><|start|>assistant"


@pytest.mark.parametrize(
    ("answer", "thoughts", "text"),
    [
        (f"{THINKS}Well <|en, <{NEXT}{FINAL}Hello <|", "Well <|en, <", "Hello <|"),
        (f"{THINKS}One{NEXT}{THINKS}two{NEXT}{FINAL}x<|return|>", "One\n\ntwo", "x"),
        (f"{FINAL}Hello{NEXT}{FINAL}again", "", "Hello\n\nagain"),
        (f"{THINKS}cut off <|st", "cut off <|st", ""),
        ("<|channel|>fin", "", "<|channel|>fin"),
        (f"Hello {THINKS}", "", f"Hello {THINKS}"),
        ("<|channel|>" + "x" * 400, "", "<|channel|>" + "x" * 400),
        ("to me", "", "to me"),
        ("to=functions.f<|channel|>commentary json<|message|>{}<|call|>", "",
         "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}"),
        ("", "", ""),
    ],
)  # fmt: skip
@given(st.lists(st.integers(0, 120), max_size=8))
def test_channels_come_apart(answer: str, thoughts: str, text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    assert run([answer[a:b] for a, b in pairwise(edges)], HarmonyStream()) == (thoughts, text)


def test_thoughts_in_a_channel_stay_in_the_text_where_they_are_wanted_there() -> None:
    found = run([f"{THINKS}Hm{NEXT}{FINAL}Hello"], HarmonyStream(apart=False))
    assert found == ("", f"{THINKS}Hm\n\nHello")


MARKS = [THINKS, NEXT, FINAL, "<|channel|>", "<|message|>", "<|end|>", "<|start|>", "x", " ", "to=", "<", "|>"]


@given(st.lists(st.sampled_from(MARKS), max_size=10), st.lists(st.integers(0, 150), max_size=10))
def test_channels_in_disorder_are_read_alike_in_any_pieces(parts: list[str], cuts: list[int]) -> None:
    answer = "".join(parts)
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    assert run([answer], HarmonyStream()) == run([answer[a:b] for a, b in pairwise(edges)], HarmonyStream())
