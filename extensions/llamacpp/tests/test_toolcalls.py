"""Tool calls in an answer's text, however it was cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.toolcalls import ParsedToolCall, ToolCallStream

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'


def run(pieces: list[str]) -> tuple[str, str, list[ParsedToolCall]]:
    """What is shown while the answer comes, what is shown at its end, and the calls."""
    stream = ToolCallStream()
    shown = "".join(stream.feed(piece) for piece in pieces)
    rest, calls = stream.finish()
    return shown, rest, calls


@given(st.lists(st.integers(0, len(CALL) + 20), max_size=8))
def test_a_call_is_found_whatever_the_pieces_and_its_text_is_never_shown(cuts: list[int]) -> None:
    answer = "Let me look.\n" + CALL
    edges = [0, *sorted(min(cut, len(answer)) for cut in cuts), len(answer)]
    shown, rest, calls = run([answer[a:b] for a, b in pairwise(edges)])
    assert (shown, rest) == ("Let me look.\n", "")
    assert [call.name for call in calls] == ["get_weather"]
    assert json.loads(calls[0].arguments) == {"city": "Zürich"}


def test_several_calls_have_ids_of_their_own() -> None:
    shown, rest, calls = run([CALL, "\n", CALL])
    assert (shown, rest, len(calls)) == ("", "", 2)
    assert calls[0].id != calls[1].id


def test_a_call_without_its_closing_tag_counts_when_it_is_whole() -> None:
    assert [call.name for call in run([CALL.removesuffix("</tool_call>")])[2]] == ["get_weather"]


def test_arguments_quoted_once_more_are_unpacked_no_further() -> None:
    _, _, calls = run(['<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>'])
    assert json.loads(calls[0].arguments) == {"a": 1}


@given(st.lists(st.sampled_from(["<tool", "_call>", "</tool_call>", "{", '{"name": 1}', "x", "<", '"a"']), max_size=8))
def test_what_is_no_call_is_given_back_as_text_and_nothing_is_lost(pieces: list[str]) -> None:
    shown, rest, calls = run(pieces)
    assert calls == []
    assert shown + rest == "".join(pieces)


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "f", "arguments": {"a": "\\ud83d"}}',
        '{"name": "\\ud83d", "arguments": {}}',
        '{"name": "f", "arguments": {"a": 1e999}}',
    ],
)
def test_a_call_that_no_json_text_can_carry_is_given_back_as_text(body: str) -> None:
    answer = f"<tool_call>{body}</tool_call>"
    assert run([answer])[1:] == (answer, [])
