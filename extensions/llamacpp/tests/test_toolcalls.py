"""Tool calls in an answer's text, however it was cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jan_llamacpp.toolcalls import ToolCallStream, ToolStyle, style_of

CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
NAMES = ["get_weather", "f"]


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(edges)]


def run(pieces: list[str], style: ToolStyle = "hermes", **how: Any) -> tuple[str, list[tuple[str, str]], list[str]]:
    """The text, the calls with their arguments, and the parts of arguments as they came."""
    stream = ToolCallStream(style, NAMES, **how)
    shown, parts = "", []
    calls: dict[int, list[str]] = {}
    for text, found in [*map(stream.feed, pieces), stream.finish()]:
        shown += text
        for part in found:
            if part.name is not None:
                assert part.index == len(calls)
                assert part.id is not None
                calls[part.index] = [part.name, ""]
            calls[part.index][1] += part.arguments
            parts.append(part.arguments)
    return shown, [(call[0], call[1]) for call in calls.values()], parts


ANSWERS: list[tuple[ToolStyle, str, str]] = [
    ("hermes", "Let me look.\n" + CALL, "Let me look.\n"),
    ("hermes", "\n" + CALL + "\n\n", ""),
    ("hermes", CALL.removesuffix("\n</tool_call>"), ""),
    ("mistral", '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Zürich"}, "id": "123456789"}]', ""),
    ("mistral", 'Well.[TOOL_CALLS] [ {"arguments": {"city": "Zürich"}, "name": "get_weather"} ]', "Well."),
    ("llama", '{"name": "get_weather", "parameters": {"city": "Zürich"}}', ""),
    ("llama", ' <|python_tag|>{"type": "function", "name": "get_weather", "parameters": {"city": "Zürich"}}', ""),
]


@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize(("style", "answer", "text"), ANSWERS)
@given(st.lists(st.integers(0, 120), max_size=8))
def test_a_call_is_found_whatever_the_pieces(
    style: ToolStyle, answer: str, text: str, sure: bool, cuts: list[int]
) -> None:
    shown, calls, _ = run(pieces_of(answer, cuts), style, sure=sure)
    assert shown == text
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("get_weather", {"city": "Zürich"})]


TRAPS = st.dictionaries(
    st.text(max_size=4),
    st.sampled_from(["</tool_call>", "<tool_call>", '"}}', "\\", "[TOOL_CALLS]", "]", "\n"])
    | st.text()
    | st.lists(st.integers()),
    max_size=4,
)  # fmt: skip


@pytest.mark.parametrize("sure", [False, True])
@given(st.lists(TRAPS, min_size=1, max_size=4), st.lists(st.integers(0, 400), max_size=12), st.data())
def test_arguments_may_hold_any_text_the_closing_tag_too(
    sure: bool, wanted: list[dict[str, Any]], cuts: list[int], data: st.DataObject
) -> None:
    style: ToolStyle = data.draw(st.sampled_from(["hermes", "mistral", "llama"]))
    key = "parameters" if style == "llama" else "arguments"
    calls = [json.dumps({"name": "f", key: each}, ensure_ascii=data.draw(st.booleans())) for each in wanted]
    try:
        "".join(calls).encode()
    except UnicodeEncodeError:
        return
    answer = {
        "hermes": "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls),
        "mistral": f"[TOOL_CALLS][{', '.join(calls)}]",
        "llama": ";".join(calls),
    }[style]
    shown, found, _ = run(pieces_of(answer, cuts), style, sure=sure)
    assert shown == ""
    assert [json.loads(arguments) for _, arguments in found] == wanted


def test_a_call_that_is_sure_is_passed_on_as_it_comes_name_first() -> None:
    stream = ToolCallStream("hermes", NAMES, sure=True)
    seen = [
        stream.feed(piece)[1] for piece in ('<tool_call>{"na', 'me": "f", "arguments": {"a"', ": 1", "}}</tool_call>")
    ]
    assert seen[0] == []
    assert [(part.name, part.arguments) for part in seen[1]] == [("f", ""), (None, '{"a"')]
    assert [(part.name, part.arguments) for part in seen[2]] == [(None, ": 1")]
    assert [(part.name, part.arguments) for part in seen[3]] == [(None, "}")]
    assert stream.finish() == ("", [])


def test_a_call_that_is_cut_off_keeps_what_came_of_it() -> None:
    shown, calls, _ = run(['<tool_call>{"name": "f", "arguments": {"a": "lo'], sure=True)
    assert (shown, calls) == ("", [("f", '{"a": "lo')])


def test_several_calls_have_ids_of_their_own() -> None:
    stream = ToolCallStream()
    ids = [part.id for part in stream.feed(CALL + "\n" + CALL)[1]]
    assert len(set(ids)) == 2


def test_only_one_call_is_taken_where_no_more_are_wanted() -> None:
    shown, calls, _ = run([CALL + "\n" + CALL], parallel=False)
    assert len(calls) == 1
    assert shown.strip() == CALL


def test_arguments_quoted_once_more_are_unpacked_no_further() -> None:
    _, calls, _ = run(['<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>'])
    assert json.loads(calls[0][1]) == {"a": 1}


def test_json_of_a_llama_that_names_no_tool_is_an_answer() -> None:
    for answer in (
        '{"name": "Ada", "parameters": {}}',
        '{"city": "Zürich"}',
        "{",
        'See {"name": "f", "parameters": {}}',
    ):
        for sure in (False, True):
            assert run([answer], "llama", sure=sure)[:2] == (answer, [])


def test_a_broken_call_does_not_hide_the_next_one() -> None:
    broken = '<tool_call>{"name": "f", "arguments": {</tool_call>\n'
    shown, calls, _ = run([broken + CALL])
    assert [name for name, _ in calls] == ["get_weather"]
    assert shown.strip() == broken.strip()


PARTS = ["<tool", "_call>", "</tool_call>", "{", '{"name": 1}', "x", "<", '"a"', "[TOOL_CALLS]", "[", "]", "}", " ",
         "\n", "<|python_tag|>", ",", ";"]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=10), st.sampled_from(["hermes", "mistral", "llama"]), st.booleans())
def test_what_is_no_call_is_given_back_as_text_and_nothing_is_lost(
    pieces: list[str], style: ToolStyle, sure: bool
) -> None:
    shown, calls, _ = run(pieces, style, sure=sure)
    assert (shown, calls) == ("".join(pieces), [])


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "f", "arguments": {"a": "\\ud83d"}}',
        '{"name": "\\ud83d", "arguments": {}}',
        '{"name": "f", "arguments": {"a": 1e999}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": {"a": nul}}',
        '{"name": "f" "arguments": {}}',
        "",
        "call f()",
    ],
)
def test_a_call_that_is_not_well_formed_is_given_back_as_text(body: str) -> None:
    answer = f"<tool_call>{body}</tool_call>"
    assert run([answer])[:2] == (answer, [])


def test_a_models_way_of_writing_calls_is_known_by_its_template() -> None:
    assert style_of(None) == "hermes"
    assert style_of("{% if tools %}…<tool_call>…{% endif %}") == "hermes"
    assert style_of("{{ '[TOOL_CALLS][' }}") == "mistral"
    assert style_of("{{- '<|python_tag|>' }}") == "llama"
    assert style_of('Respond in the format {"name": function name, "parameters": dictionary of arguments}') == "llama"
